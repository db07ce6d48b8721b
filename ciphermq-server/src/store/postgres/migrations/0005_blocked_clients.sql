-- Clients that an administrator keeps out, with who has blocked them, and when.
CREATE TABLE blocked_clients (
    client_id    TEXT COLLATE "C" PRIMARY KEY,
    blocked_by   TEXT COLLATE "C" NOT NULL,
    blocked_time TEXT COLLATE "C" NOT NULL
);
