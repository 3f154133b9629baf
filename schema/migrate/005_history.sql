-- From version 4 to 5: the history of a large change is not read again by each change after it.

CREATE TABLE revision_change_5 (
	revision INTEGER NOT NULL REFERENCES revision(n) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
	position INTEGER NOT NULL,
	resource TEXT NOT NULL,
	name TEXT NOT NULL,
	before TEXT,
	after TEXT,
	PRIMARY KEY (revision, position)
) STRICT;
INSERT INTO revision_change_5 (revision, position, resource, name, before, after)
	SELECT revision, position, resource, name, before, after FROM revision_change;
DROP TABLE revision_change;
ALTER TABLE revision_change_5 RENAME TO revision_change;
