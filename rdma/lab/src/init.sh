#!/bin/busybox sh
# The guest's first program: loads the kernel modules, puts a writable layer over the host's files (read-only, by 9p),
# sets the network and the RDMA device up, and becomes the lab's agent. What fails is written to /run/lab/trouble, which
# the agent reports: the lab then fails with that text.
B=/bin/busybox
trouble() { echo "$*"; echo "$*" >> /run/lab/trouble; }
stop() { echo "init: $*"; $B sleep 1; $B poweroff -f; }

$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mount -t tmpfs -o mode=755 run /run
$B mkdir -p /run/lab /run/tmp /host /layer /new
$B cp /second.sh /run/lab/second
while read -r module; do
    $B insmod "/modules/$module" || trouble "the kernel module $module can't be loaded"
done < /modules/order

for word in $($B cat /proc/cmdline); do
    case "$word" in lab.*) key=${word%%=*}; eval "${key#lab.}=\${word#*=}" ;; esac
done

$B mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose,noatime host /host || stop "the host's files can't be mounted"
$B mount -t tmpfs layer /layer
$B mkdir /layer/upper /layer/work
$B mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /new || stop "no overlay over the host's files"
for folder in proc sys dev run; do $B mount --move "/$folder" "/new/$folder" || stop "/$folder is missing on the host"; done
$B mkdir -p /new/dev/shm /new/dev/pts
$B mount -t tmpfs shm /new/dev/shm
$B mount -t devpts pts /new/dev/pts
$B ln -sf /proc/self/fd /new/dev/fd; $B ln -sf /proc/self/fd/0 /new/dev/stdin
$B ln -sf /proc/self/fd/1 /new/dev/stdout; $B ln -sf /proc/self/fd/2 /new/dev/stderr
exec $B switch_root /new /bin/sh /run/lab/second
