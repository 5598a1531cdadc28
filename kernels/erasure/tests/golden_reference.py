#!/usr/bin/env python3
"""Derives the golden hashes of src/tests.rs and src/lrc_tests.rs from the formulas in the crate's docs, sharing no code with the crate.

Prints one line per code: k, m (or k, l, g), bytes per shard, SHA-256 of all parity shards one after the other.
"""
import hashlib

CASES = [(10, 4, 4109), (4, 2, 1000), (2, 1, 1), (20, 4, 65), (1, 2, 33), (6, 3, 300), (200, 55, 40)]
LRC_CASES = [(12, 2, 2, 4109), (6, 3, 1, 300), (7, 3, 2, 65), (8, 2, 3, 129), (40, 2, 2, 33)]


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


def golden(rows, k, length):
    data = [shard(1000 * k + j, length) for j in range(k)]
    digest = hashlib.sha256()
    for row in rows:
        parity = bytearray(length)
        for j in range(k):
            scaled = data[j].translate(PRODUCTS[row[j]])
            parity = bytearray(a ^ b for a, b in zip(parity, scaled))
        digest.update(parity)
    return digest.hexdigest()


def power(n):
    product = 1
    for _ in range(n):
        product = mul(product, 2)
    return product


def lrc_rows(k, l, g):
    sizes = [k // l + (group < k % l) for group in range(l)]
    places = [(group, member) for group in range(l) for member in range(sizes[group])]
    local = [[int(place[0] == group) for place in places] for group in range(l)]
    if g <= 2 and l <= 17 and max(sizes) <= 15:
        first = [power(group + 17 * member) for group, member in places]
        globals_ = [first, [mul(a, a) for a in first]][:g]
    else:
        globals_ = [[coefficient(i, j) for j in range(k)] for i in range(1, g + 1)]
    return local + globals_


for k, m, length in CASES:
    rows = [[coefficient(i, j) for j in range(k)] for i in range(m)]
    print(f'({k}, {m}, {length}, "{golden(rows, k, length)}"),')
for k, l, g, length in LRC_CASES:
    print(f'({k}, {l}, {g}, {length}, "{golden(lrc_rows(k, l, g), k, length)}"),')
