SELECT id
  FROM "pinnacle_identity";

CREATE TEMP TABLE IF NOT EXISTS pinnacle_batch_1_6e70874d (k0 INTEGER, o, x0, h, PRIMARY KEY (k0));

DELETE FROM temp.pinnacle_batch_1_6e70874d;

INSERT INTO temp.pinnacle_batch_1_6e70874d (k0, o, x0, h)
  VALUES (1, NULL, 'a', <hash>);

INSERT INTO "pinnacle_state_1" (k0, fingerprint, version, failed)
  SELECT b.k0, b.h, 0, 1
  FROM temp.pinnacle_batch_1_6e70874d AS b
  CROSS JOIN "docs" ON "docs"."id" = b.k0
  WHERE docs.body IS b.x0 COLLATE BINARY AND typeof(docs.body) = typeof(b.x0)
  ON CONFLICT (k0) DO UPDATE
  SET fingerprint = excluded.fingerprint, version = excluded.version, failed = excluded.failed
  RETURNING k0;

DELETE FROM main.pinnacle_error
  WHERE main.pinnacle_error.output_id = 1 AND main.pinnacle_error."key" = '1';

INSERT INTO main.pinnacle_error (output_id, "key", version, error, message, traceback, attempts, failed_at)
  VALUES (1, '1', 0, 'ValueError', 'bad', '', 3, <time>);

SELECT main.pinnacle_error."key"
  FROM main.pinnacle_error
  WHERE main.pinnacle_error.output_id = 1 AND main.pinnacle_error.traceback != ''
  ORDER BY main.pinnacle_error.failed_at DESC, main.pinnacle_error."key"
  LIMIT -1 OFFSET 1000;
