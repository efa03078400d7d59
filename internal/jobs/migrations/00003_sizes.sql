-- +goose Up
DROP TABLE IF EXISTS river_client_queue; -- River has a file of its own
DROP TABLE IF EXISTS river_client;
DROP TABLE IF EXISTS river_job;
DROP TABLE IF EXISTS river_leader;
DROP TABLE IF EXISTS river_notification;
DROP TABLE IF EXISTS river_queue;
DROP TABLE IF EXISTS river_migration;
DROP INDEX jobs_that_wait;
DROP INDEX jobs_ready;
ALTER TABLE jobs DROP COLUMN handed; -- what is handed out is running
CREATE INDEX jobs_that_wait ON jobs (namespace, size) WHERE status = 'queued';
CREATE INDEX jobs_ready ON jobs (namespace, priority DESC, seq) WHERE status = 'queued' AND due = 0;
ALTER TABLE jobs ADD COLUMN result_size INTEGER NOT NULL DEFAULT 0; -- bytes of the result, wherever it is
UPDATE jobs SET result_size = coalesce(length(result), 0), result_of = CASE WHEN result IS NULL AND in_file = 0 THEN 0 ELSE result_of END;
UPDATE jobs SET spec = CAST(json_object('ID', id, 'Namespace', namespace,
	'CallbackURL', json_extract(CAST(spec AS TEXT), '$.CallbackURL'),
	'Request', json_object('output_encoding', json_extract(CAST(spec AS TEXT), '$.Request.output_encoding'))) AS BLOB) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_with_results ON jobs (started_at, namespace, result_size) WHERE finished_at IS NULL AND result_size > 0;

-- +goose Down
DROP INDEX jobs_with_results;
ALTER TABLE jobs DROP COLUMN result_size;
DROP INDEX jobs_ready;
DROP INDEX jobs_that_wait;
ALTER TABLE jobs ADD COLUMN handed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_that_wait ON jobs (namespace, size) WHERE status = 'queued' AND handed = 0;
CREATE INDEX jobs_ready ON jobs (namespace, priority DESC, seq) WHERE status = 'queued' AND handed = 0 AND due = 0;
