CREATE TABLE main.pinnacle_state_1 ( k0 INTEGER NOT NULL, fingerprint BLOB NOT NULL, version INTEGER NOT NULL, failed BOOLEAN NOT NULL, PRIMARY KEY (k0) );

CREATE VIEW "pinnacle_place_1" AS
  SELECT '' AS table_schema, 'docs' AS table_name, 'loud' AS name, 'column' AS kind, 'shout' AS model, '"body"' AS fields, 'made' AS made;

ALTER TABLE "docs" ADD COLUMN "loud" TEXT;

CREATE TABLE IF NOT EXISTS "pinnacle_outbox_1" (id INTEGER PRIMARY KEY, k0 INTEGER, changed_at REAL NOT NULL DEFAULT (julianday('now')));

CREATE TABLE IF NOT EXISTS "pinnacle_work_1" (place INTEGER PRIMARY KEY, k0 INTEGER NOT NULL, revision INTEGER NOT NULL, at REAL NOT NULL, UNIQUE (k0));

CREATE TRIGGER "pinnacle_1_insert"
  AFTER INSERT ON "docs"
  BEGIN
  INSERT INTO "pinnacle_outbox_1" (k0)
  VALUES (new."id");
  END;

CREATE TRIGGER "pinnacle_1_update"
  AFTER UPDATE ON "docs"
  WHEN (old."body" IS NOT new."body" COLLATE BINARY OR typeof(old."body") <> typeof(new."body")) OR (old."id" IS NOT new."id" COLLATE BINARY OR typeof(old."id") <> typeof(new."id")) OR ((old."loud" IS NOT new."loud" COLLATE BINARY OR typeof(old."loud") <> typeof(new."loud")) AND NOT EXISTS (SELECT 1
      FROM "pinnacle_listener"
      WHERE output_id = 1 AND is_writing))
  BEGIN
  INSERT INTO "pinnacle_outbox_1" (k0)
  VALUES (new."id");
  END;

CREATE TRIGGER "pinnacle_1_move"
  AFTER UPDATE ON "docs"
  WHEN (old."id" IS NOT new."id" COLLATE BINARY OR typeof(old."id") <> typeof(new."id"))
  BEGIN
  INSERT INTO "pinnacle_outbox_1" (k0)
  VALUES (old."id");
  END;

CREATE TRIGGER "pinnacle_1_delete"
  AFTER DELETE ON "docs"
  BEGIN
  INSERT INTO "pinnacle_outbox_1" (k0)
  VALUES (old."id");
  END;

CREATE TRIGGER "pinnacle_1_clear"
  AFTER UPDATE ON "docs"
  WHEN (old."body" IS NOT new."body" COLLATE BINARY OR typeof(old."body") <> typeof(new."body"))
  BEGIN
  UPDATE "docs"
  SET "loud" = NULL
  WHERE "id" IS new."id";
  END;
