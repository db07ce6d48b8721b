-- Clients that an administrator keeps out, with who has blocked them, and when.
CREATE TABLE blocked_clients (
    client_id    TEXT PRIMARY KEY,
    blocked_by   TEXT NOT NULL,
    blocked_time TEXT NOT NULL
) WITHOUT ROWID;
