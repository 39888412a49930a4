CREATE TEMP TABLE IF NOT EXISTS pinnacle_batch_1_6e70874d (k0 INTEGER, o, x0, h, PRIMARY KEY (k0));

DELETE FROM temp.pinnacle_batch_1_6e70874d;

INSERT INTO temp.pinnacle_batch_1_6e70874d (k0, o, x0, h)
  VALUES (1, 'A', 'a', <hash>), (2, 'B', 'b', <hash>), (3, 'C', 'c', <hash>);

SELECT (SELECT version
    FROM "pinnacle_output"
    WHERE id = 1), EXISTS (SELECT 1
    FROM "pinnacle_error"
    WHERE output_id = 1), EXISTS (SELECT 1
    FROM "pinnacle_listener"
    WHERE output_id = 1), EXISTS (SELECT 1
    FROM "main".sqlite_master
    WHERE type = 'trigger' AND tbl_name = 'docs' COLLATE NOCASE AND name NOT GLOB 'pinnacle_[0-9]*'), (SELECT id
    FROM "pinnacle_identity");

UPDATE "pinnacle_listener"
  SET is_writing = 1
  WHERE output_id = 1;

UPDATE "docs"
  SET "loud" = (SELECT b.o
    FROM temp.pinnacle_batch_1_6e70874d AS b
    WHERE "docs"."id" = b.k0)
  WHERE "docs"."id" IN (SELECT b.k0
    FROM temp.pinnacle_batch_1_6e70874d AS b
    CROSS JOIN "docs" ON "docs"."id" = b.k0
    WHERE docs.body IS b.x0 COLLATE BINARY AND typeof(docs.body) = typeof(b.x0));

UPDATE "pinnacle_listener"
  SET is_writing = 0
  WHERE output_id = 1;

INSERT INTO "pinnacle_state_1" (k0, fingerprint, version, failed)
  SELECT k0, h, 0, 0
  FROM temp.pinnacle_batch_1_6e70874d
  WHERE true
  ON CONFLICT (k0) DO UPDATE
  SET fingerprint = excluded.fingerprint, version = excluded.version, failed = excluded.failed;
