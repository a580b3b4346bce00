# Run by the image at its first start, on an empty volume: Dagster's database, and an account for each part of the system.
# Passwords are in the environment, or in the files that it names.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

account() { # NAME VARIABLE
    local file="$2_FILE" password="${!2:-}"
    if [ -n "${!file:-}" ]; then
        password=$(cat "${!file}")
    fi
    printf 'CREATE USER %s IDENTIFIED BY %s;\n' "$(quoted "$1")" "$(quoted "${password:?}")"
}

grant() { # RIGHTS DATABASE NAME
    printf 'GRANT %s ON `%s`.* TO %s;\n' "$1" "${2//_/\\_}" "$(quoted "$3")"
}

rows="SELECT, INSERT, UPDATE, DELETE"
tables="$rows, CREATE, ALTER, DROP, INDEX, REFERENCES"

docker_process_sql <<SQL
CREATE DATABASE \`$MYSQL_DAGSTER_DATABASE\`;
$(account "$BATCH_USER" BATCH_PASSWORD)
$(grant "$rows" "$MYSQL_DATABASE" "$BATCH_USER")
$(grant "$rows" "$MYSQL_DAGSTER_DATABASE" "$BATCH_USER")
$(account "$API_USER" API_PASSWORD)
$(grant "SELECT, INSERT, UPDATE" "$MYSQL_DATABASE" "$API_USER")
$(account "$MIGRATIONS_USER" MIGRATIONS_PASSWORD)
$(grant "$tables" "$MYSQL_DATABASE" "$MIGRATIONS_USER")
$(grant "$tables" "$MYSQL_DAGSTER_DATABASE" "$MIGRATIONS_USER")
SQL
