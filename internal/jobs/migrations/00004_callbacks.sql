-- +goose Up
DROP INDEX IF EXISTS jobs_to_tell;
CREATE INDEX jobs_to_tell ON jobs (namespace, callback_due, seq) WHERE callback_left > 0;
UPDATE jobs SET size = size + 1024 + coalesce(length(error), 0) + length(spec) WHERE finished_at IS NOT NULL; -- what a row takes beside its result

-- +goose Down
DROP INDEX jobs_to_tell;
CREATE INDEX jobs_to_tell ON jobs (callback_due) WHERE callback_left > 0 AND finished_at IS NOT NULL;
UPDATE jobs SET size = result_size WHERE finished_at IS NOT NULL;
