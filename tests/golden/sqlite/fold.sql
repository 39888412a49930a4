SELECT 1
  FROM "pinnacle_outbox_1"
  LIMIT 1;

SELECT main.pinnacle_listener.position, main.pinnacle_listener.version, main.pinnacle_listener.paused
  FROM main.pinnacle_listener
  WHERE main.pinnacle_listener.output_id = 1;

SELECT id
  FROM "pinnacle_outbox_1"
  ORDER BY id
  LIMIT 1 OFFSET 4999;

SELECT max(id)
  FROM "pinnacle_outbox_1";

SELECT min(id)
  FROM "pinnacle_outbox_1";

INSERT INTO "pinnacle_work_1" (place, k0, revision, at)
  SELECT max(id) + 0, k0, 0, (min(changed_at) - 2440587.5) * 86400.0
  FROM "pinnacle_outbox_1"
  WHERE id <= 3 AND k0 IS NOT NULL GROUP BY k0
  ON CONFLICT (k0) DO UPDATE
  SET revision = excluded.place;

SELECT 1
  FROM "pinnacle_outbox_1"
  WHERE id <= 3 AND k0 IS NULL
  LIMIT 1;

DELETE FROM "pinnacle_outbox_1"
  WHERE id <= 3;

UPDATE main.pinnacle_listener
  SET position='3', folded_at=<time>
  WHERE main.pinnacle_listener.output_id = 1;
