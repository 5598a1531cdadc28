# The second half of init, on the host's files: network, RDMA device, disk; then the agent.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/run/tmp RUST_BACKTRACE=1
trouble() { echo "$*"; echo "$*" >> /run/lab/trouble; }
try() { "$@" || trouble "failed: $*"; }
for word in $(cat /proc/cmdline); do
    case "$word" in lab.*) key=${word%%=*}; eval "${key#lab.}=\${word#*=}" ;; esac
done
# Should the lab die without a word, the guest must not live on.
( sleep "$limit_s"; echo o > /proc/sysrq-trigger ) &
ulimit -l unlimited; ulimit -n 65536; ulimit -c 0
hostname "$name"
try ip link set lo up
if [ "$network" = veth ]; then
    try ip link add lab0 mtu 9000 type veth peer name lab1 mtu 9000
    try ip link set lab1 up
else
    try ip link set eth0 name lab0
    try ip link set lab0 mtu 9000
fi
try ip link set lab0 up
try ip address add "$address/24" dev lab0
try rdma link add rxe0 type rxe netdev lab0
# The GID of the IPv4 address appears a moment after the address.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    grep -qi ffff: /sys/class/infiniband/rxe0/ports/1/gids/* 2>/dev/null && break; sleep 0.1
done
grep -qi ffff: /sys/class/infiniband/rxe0/ports/1/gids/* 2>/dev/null || trouble "rxe0 has no GID for $address"
echo "$hosts" | tr , '\n' | tr = '\t' | { printf '127.0.0.1\tlocalhost\n'; cat; } > /etc/hosts
if [ "$disk" = 1 ]; then
    mkdir -p /data
    try mount -t ext4 -o noatime /dev/nvme0n1 /data
fi
port=$(grep -l '^penstock$' /sys/class/virtio-ports/*/name); port=${port%/name}
exec "$agent" agent "/dev/${port##*/}"
