#!/bin/sh
# Starts Redis with its configuration on standard input: a password on the command line would show in every process list.
# noeviction: the stream of predictions must never be dropped to make room.
exec redis-server - <<CONFIGURATION
bind * -::*
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory ${MAXMEMORY}
maxmemory-policy noeviction
requirepass $(cat /run/secrets/redis-password)
CONFIGURATION
