#!/bin/sh
# Start Valkey with its configuration on stdin, which keeps the password out of the process list.
# noeviction: the stream of predictions must never be evicted.
exec valkey-server - <<CONFIGURATION
bind * -::*
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory ${MAXMEMORY}
maxmemory-policy noeviction
requirepass $(cat /run/secrets/redis-password)
CONFIGURATION
