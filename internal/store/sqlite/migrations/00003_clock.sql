-- +goose Up
CREATE TABLE clock ( -- the line of time that lengths are measured on: one row
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	boot   TEXT NOT NULL,
	origin INTEGER NOT NULL, -- nanoseconds, as all of it: what the line said when the host booted
	ahead  INTEGER NOT NULL,
	seen   INTEGER NOT NULL
) STRICT;
ALTER TABLE sandboxes ADD COLUMN made INTEGER; -- milliseconds on the line; NULL: from before there was one, which begins as the wall clock
ALTER TABLE sandboxes ADD COLUMN used INTEGER;

-- +goose Down
ALTER TABLE sandboxes DROP COLUMN used;
ALTER TABLE sandboxes DROP COLUMN made;
DROP TABLE clock;
