# Two nodes and a gateway as processes, RDMA required between them: PUT and GET by curl, and what the processes say that
# went over RDMA. Run as: bash -c SCRIPT processes PENSTOCK. No braces: the lab fills those in.
set -u
program=$1
folder=$(mktemp -d /data/processes.XXXX) && cd "$folder" || exit 1
export PENSTOCK_LOG=info RUST_BACKTRACE=0
"$program" cluster-key --out cluster.key > /dev/null
cat > cluster.toml <<CONFIG
[cluster]
key_file = "cluster.key"
rdma = "require"
[gateway]
listen = "127.0.0.1:9000"
data = "gateway"
[[node]]
id = 0
address = "127.0.0.1:7400"
data = "node-00"
capacity = "256MiB"
[[node]]
id = 1
address = "127.0.0.1:7401"
data = "node-01"
capacity = "256MiB"
CONFIG
"$program" node --config cluster.toml --id 0 > node-0.log 2>&1 & node_0=$!
"$program" node --config cluster.toml --id 1 > node-1.log 2>&1 & node_1=$!
"$program" gateway --config cluster.toml > gateway.out 2> gateway.log & gateway=$!
for attempt in $(seq 240); do grep -qs "S3 is served" gateway.log && break; sleep 0.5; done
key=$(sed -n 's/^AWS_ACCESS_KEY_ID=\([^ ]*\)$/\1/p' gateway.out)
secret=$(sed -n 's/^AWS_SECRET_ACCESS_KEY=\([^ ]*\)$/\1/p' gateway.out)
s3() ( curl -sS --max-time 60 --fail-with-body -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" --aws-sigv4 "aws:amz:us-east-1:s3" --user "$key:$secret" "$@" )
failed=0
s3 -X PUT http://127.0.0.1:9000/first || failed=1
for bytes in 1 5000 100000 1048576 9000000; do
    head -c "$bytes" /dev/urandom > "in.$bytes"
    if s3 -T "in.$bytes" "http://127.0.0.1:9000/first/o.$bytes" \
        && s3 -o "out.$bytes" "http://127.0.0.1:9000/first/o.$bytes" && cmp "in.$bytes" "out.$bytes"; then
        echo "$bytes bytes came back"
    else
        failed=1
    fi
done
kill -TERM "$gateway"; wait "$gateway"
kill -TERM "$node_0" "$node_1"; wait
grep -h "over RDMA counts\|RDMA connections are closed" gateway.log node-0.log node-1.log | cut -c1-300
grep -q "calls_rdma: [1-9].*calls_tcp: 0" gateway.log || failed=1
grep -q "written_bytes: [1-9]" node-0.log node-1.log || failed=1
[ "$failed" = 0 ] || tail -n 20 gateway.log node-0.log node-1.log
exit "$failed"
