SELECT 1
  FROM "pinnacle_outbox_1"
  LIMIT 1;

SELECT id
  FROM "pinnacle_identity";

SELECT position, version, paused
  FROM "pinnacle_listener"
  WHERE output_id = 1;

SELECT (SELECT min(id)
    FROM "pinnacle_outbox_1"), coalesce((SELECT id
      FROM "pinnacle_outbox_1"
      ORDER BY id
      LIMIT 1 OFFSET 4999), (SELECT max(id)
      FROM "pinnacle_outbox_1"));

INSERT INTO "pinnacle_work_1" (place, k0, revision, at)
  SELECT max(id) + 0, k0, 0, (min(changed_at) - 2440587.5) * 86400.0
  FROM "pinnacle_outbox_1"
  WHERE id <= 3 AND k0 IS NOT NULL GROUP BY k0
  ON CONFLICT (k0) DO UPDATE
  SET revision = excluded.place;

SELECT 1
  FROM "pinnacle_outbox_1"
  WHERE id <= 3 AND NOT (k0 IS NOT NULL)
  LIMIT 1;

DELETE FROM "pinnacle_outbox_1"
  WHERE id <= 3;

UPDATE "pinnacle_listener"
  SET position = '3', folded_at = <time>
  WHERE output_id = 1;
