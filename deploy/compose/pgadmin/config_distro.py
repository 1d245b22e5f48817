# Replaces the file that the image writes at its first start, because the root file system is read-only. The first four
# settings are the image's own, with the programs of our PostgreSQL version.
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
LOG_FILE = "/dev/null"  # everything is also on stderr
HELP_PATH = "../../docs"
DEFAULT_BINARY_PATHS = {"pg": "/usr/local/pgsql-16", "pg-16": "/usr/local/pgsql-16"}
SHOW_GRAVATAR_IMAGE = False  # no requests to gravatar.com
UPGRADE_CHECK_ENABLED = False  # no requests to pgadmin.org
