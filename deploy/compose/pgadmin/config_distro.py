# In the place of the file that the image writes at its first start, which takes a root that can be written. The first
# four settings are the image's own, with the programs of our PostgreSQL's version.
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
LOG_FILE = "/dev/null"  # all of it is on standard error too
HELP_PATH = "../../docs"
DEFAULT_BINARY_PATHS = {"pg": "/usr/local/pgsql-16", "pg-16": "/usr/local/pgsql-16"}
SHOW_GRAVATAR_IMAGE = False  # else each user's browser asks gravatar.com
UPGRADE_CHECK_ENABLED = False  # else each login asks pgadmin.org
