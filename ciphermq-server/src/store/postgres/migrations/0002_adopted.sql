-- When the keys that older servers had sealed were sealed anew: they are refused from then on. One row at most.
CREATE TABLE at_rest_adoption (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    adopted_time TEXT NOT NULL
);
