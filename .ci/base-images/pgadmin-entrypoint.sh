#!/bin/bash
# The part of the public image's entrypoint that the project relies on: same variables, same files, same first-run steps.
set -eo pipefail
cd /pgadmin4
python=/venv/bin/python3
[ -s config_distro.py ] || echo "LOG_FILE = '/dev/null'" >config_distro.py
if [ ! -e /var/lib/pgadmin/pgadmin4.db ]; then
  : "${PGADMIN_DEFAULT_EMAIL:?an address is needed}"
  export PGADMIN_SETUP_EMAIL=$PGADMIN_DEFAULT_EMAIL
  PGADMIN_SETUP_PASSWORD=$(cat "${PGADMIN_DEFAULT_PASSWORD_FILE:?a password is needed}")
  export PGADMIN_SETUP_PASSWORD
  $python run_pgadmin.py
  servers=${PGADMIN_SERVER_JSON_FILE:-/pgadmin4/servers.json}
  [ ! -e "$servers" ] || $python setup.py load-servers "$servers" --user "$PGADMIN_DEFAULT_EMAIL"
  [ ! -e "$PGPASS_FILE" ] || install -D -m 0600 "$PGPASS_FILE" "/var/lib/pgadmin/storage/${PGADMIN_DEFAULT_EMAIL//@/_}/.pgpass"
fi
exec /venv/bin/gunicorn --bind "${PGADMIN_LISTEN_ADDRESS:-[::]}:${PGADMIN_LISTEN_PORT:-80}" --workers 1 --threads 25 \
  --timeout 86400 --access-logfile - run_pgadmin:app
