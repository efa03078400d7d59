-- +goose Up
CREATE TABLE execs ( -- those in the background
	seq    INTEGER PRIMARY KEY,
	id     TEXT NOT NULL UNIQUE,
	record TEXT NOT NULL -- service.ExecNote
) STRICT;

-- +goose Down
DROP TABLE execs;
