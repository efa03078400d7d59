-- +goose Up
DROP INDEX IF EXISTS jobs_to_tell;
CREATE INDEX jobs_to_tell ON jobs (namespace, callback_due, seq) WHERE callback_left > 0;
UPDATE jobs SET size = size + 1024 + coalesce(length(error), 0) + length(spec) WHERE finished_at IS NOT NULL; -- what a row takes beside its result
ALTER TABLE jobs ADD COLUMN command TEXT NOT NULL DEFAULT ''; -- what runs, in short
ALTER TABLE jobs ADD COLUMN exit_code INTEGER; -- of the result
ALTER TABLE jobs ADD COLUMN callback TEXT; -- waiting, heard or given_up

-- +goose Down
ALTER TABLE jobs DROP COLUMN callback;
ALTER TABLE jobs DROP COLUMN exit_code;
ALTER TABLE jobs DROP COLUMN command;
DROP INDEX jobs_to_tell;
CREATE INDEX jobs_to_tell ON jobs (callback_due) WHERE callback_left > 0 AND finished_at IS NOT NULL;
UPDATE jobs SET size = result_size WHERE finished_at IS NOT NULL;
