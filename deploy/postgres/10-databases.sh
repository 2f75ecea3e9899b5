#!/bin/sh
# Roles and databases, made once when the server's data folder is empty. Each service owns its own database; the audit
# log has two roles: one that owns the tables and migrates, and one that the service uses and that can only add and read.
set -eu
make_role() {
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set "role=$1" --set "password=$2" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
SQL
}
make_database() {
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set "name=$1" --set "owner=$2" <<'SQL'
CREATE DATABASE :"name" OWNER :"owner";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}
make_role ingest "$INGEST_DB_PASSWORD"
make_role image_keys "$IMAGE_KEYS_DB_PASSWORD"
make_role probe_keys "$PROBE_KEYS_DB_PASSWORD"
make_role request_keys "$REQUEST_KEYS_DB_PASSWORD"
make_role search "$SEARCH_DB_PASSWORD"
make_role review "$REVIEW_DB_PASSWORD"
make_role audit_owner "$AUDIT_OWNER_DB_PASSWORD"
make_role audit_writer "$AUDIT_DB_PASSWORD"
make_database ingest ingest
# The keys of enrolled images, of probes and of requests' pictures: a copy of the other databases opens nothing.
make_database image_keys image_keys
make_database probe_keys probe_keys
make_database request_keys request_keys
make_database search search
make_database review review
make_database audit audit_owner
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --command 'GRANT CONNECT ON DATABASE audit TO audit_writer'
