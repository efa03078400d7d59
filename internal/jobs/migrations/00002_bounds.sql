-- +goose Up
ALTER TABLE jobs ADD COLUMN size INTEGER NOT NULL DEFAULT 0; -- bytes of the spec while it waits, of the result when it has ended
ALTER TABLE jobs ADD COLUMN result_of INTEGER NOT NULL DEFAULT 0; -- the attempt that the result is of
ALTER TABLE jobs ADD COLUMN stalled INTEGER NOT NULL DEFAULT 0; -- tries since the last attempt that found no room
UPDATE jobs SET result_of = attempts, size = length(CASE WHEN finished_at IS NULL THEN spec ELSE coalesce(result, '') END);
DROP INDEX jobs_that_wait;
CREATE INDEX jobs_that_wait ON jobs (namespace, size) WHERE status = 'queued' AND handed = 0;
CREATE INDEX jobs_ready ON jobs (namespace, priority DESC, seq) WHERE status = 'queued' AND handed = 0 AND due = 0;
CREATE INDEX jobs_later ON jobs (due) WHERE due > 0;
DROP INDEX jobs_that_ended;
CREATE INDEX jobs_that_ended ON jobs (finished_at, namespace, size) WHERE finished_at IS NOT NULL;

-- +goose Down
DROP INDEX jobs_that_ended;
CREATE INDEX jobs_that_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;
DROP INDEX jobs_later;
DROP INDEX jobs_ready;
DROP INDEX jobs_that_wait;
CREATE INDEX jobs_that_wait ON jobs (namespace, priority DESC, seq) WHERE status = 'queued' AND handed = 0;
ALTER TABLE jobs DROP COLUMN stalled;
ALTER TABLE jobs DROP COLUMN result_of;
ALTER TABLE jobs DROP COLUMN size;
