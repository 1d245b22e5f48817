# Create the role and the database that DATABASE_URL names. The image's entrypoint sources this file once, in a new
# cluster. The role owns its database and nothing else.
url=$(cat /run/secrets/database-url)
credentials=${url#postgresql://}
credentials=${credentials%%@*}
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set role="${credentials%%:*}" --set database="${url##*/}" <<SQL
\set password '${credentials#*:}'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
