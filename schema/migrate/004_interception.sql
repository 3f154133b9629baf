-- From version 3 to 4: the settings name the interception engine.

CREATE TABLE settings_4 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (name = 'settings'),
	drift TEXT NOT NULL DEFAULT 'heal' CHECK (drift IN ('heal', 'alert')),
	interception TEXT NOT NULL DEFAULT 'nft' CHECK (interception IN ('nft', 'ebpf')),
	ban_exempt TEXT REFERENCES address_set(name) ON DELETE RESTRICT,
	revisions_kept INTEGER NOT NULL DEFAULT 10000 CHECK (revisions_kept BETWEEN 10 AND 100000),
	flow_log_destination TEXT NOT NULL DEFAULT 'off' CHECK (flow_log_destination IN ('off', 'file', 'journal')),
	flow_log_file TEXT NOT NULL DEFAULT 'flows.jsonl' CHECK (length(CAST(flow_log_file AS BLOB)) <= 64),
	flow_log_events TEXT NOT NULL DEFAULT 'end' CHECK (flow_log_events IN ('end', 'start', 'both')),
	flow_log_sample INTEGER NOT NULL DEFAULT 1 CHECK (flow_log_sample BETWEEN 1 AND 1000000),
	flow_log_fields TEXT NOT NULL DEFAULT '[]' CHECK (flow_log_fields GLOB '[[]*]' AND length(flow_log_fields) <= 6477),
	talkers_kept INTEGER NOT NULL DEFAULT 16384 CHECK (talkers_kept BETWEEN 0 AND 262144)
) STRICT;
INSERT INTO settings_4 (id, revision, name, drift, ban_exempt, revisions_kept, flow_log_destination, flow_log_file, flow_log_events, flow_log_sample, flow_log_fields, talkers_kept)
	SELECT id, revision, name, drift, ban_exempt, revisions_kept, flow_log_destination, flow_log_file, flow_log_events, flow_log_sample, flow_log_fields, talkers_kept FROM settings;
-- Ids are never used again, those of deleted rows neither.
DELETE FROM sqlite_sequence WHERE name = 'settings_4';
INSERT INTO sqlite_sequence (name, seq) SELECT 'settings_4', seq FROM sqlite_sequence WHERE name = 'settings';
DROP TABLE settings;
ALTER TABLE settings_4 RENAME TO settings;
CREATE INDEX settings_ban_exempt ON settings(ban_exempt) WHERE ban_exempt IS NOT NULL;
