#!/usr/bin/env python3
"""Derives the golden hashes of src/tests.rs from the formula in the crate's docs, sharing no code with the crate.

Prints one line per code: k, m, bytes per shard, SHA-256 of all parity shards one after the other.
"""
import hashlib

CASES = [(10, 4, 4109), (4, 2, 1000), (2, 1, 1), (20, 4, 65), (1, 2, 33), (6, 3, 300), (200, 55, 40)]


def mul(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


INVERSE = {a: next(b for b in range(1, 256) if mul(a, b) == 1) for a in range(1, 256)}
PRODUCTS = {a: bytes(mul(a, b) for b in range(256)) for a in range(256)}


def coefficient(i, j):
    x, y = (lambda i: 255 - i), (lambda j: j)
    above = mul(x(0) ^ y(j), x(i) ^ y(0))
    below = mul(x(i) ^ y(j), x(0) ^ y(0))
    return mul(above, INVERSE[below])


def shard(seed, length):
    """The bytes of random_bytes in src/tests.rs: a shortened splitmix64, top byte of each output."""
    mask, state, out = (1 << 64) - 1, seed, bytearray()
    for _ in range(length):
        state = (state + 0x9E3779B97F4A7C15) & mask
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        out.append(((mixed * 0x94D049BB133111EB) & mask) >> 56)
    return bytes(out)


for k, m, length in CASES:
    data = [shard(1000 * k + j, length) for j in range(k)]
    digest = hashlib.sha256()
    for i in range(m):
        parity = bytearray(length)
        for j in range(k):
            scaled = data[j].translate(PRODUCTS[coefficient(i, j)])
            parity = bytearray(a ^ b for a, b in zip(parity, scaled))
        digest.update(parity)
    print(f'({k}, {m}, {length}, "{digest.hexdigest()}"),')
