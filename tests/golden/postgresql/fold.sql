SELECT position, version, paused
  FROM "pinnacle"."pinnacle_listener"
  WHERE output_id = 1 FOR UPDATE;

WITH taken AS (DELETE FROM "pinnacle"."pinnacle_outbox_1"
    WHERE ctid = ANY(ARRAY(SELECT ctid
        FROM ((SELECT ctid, xid
            FROM "pinnacle"."pinnacle_outbox_1"
            WHERE true AND xid >= CAST(%(at)s AS xid8)
            ORDER BY xid
            LIMIT %(rows)s)) AS unseen
        ORDER BY xid
        LIMIT %(rows)s))
    RETURNING xid, CAST(k0 AS integer) AS k0, changed_at), folded AS (INSERT INTO "pinnacle"."pinnacle_work_1" (k0, at)
    SELECT k0, CAST(extract(epoch
        FROM min(changed_at)) AS double precision)
    FROM taken
    WHERE k0 IS NOT NULL GROUP BY k0
    ON CONFLICT (k0) DO UPDATE
    SET revision = excluded.place)
  SELECT count(*), CAST(max(xid) AS text), bool_or(k0 IS NULL), CAST(pg_current_snapshot() AS text)
  FROM taken;

UPDATE "pinnacle"."pinnacle_listener"
  SET position = %s, folded_at = %s
  WHERE output_id = 1;
