/* Lists of changes as the API tells them: {op, path, before, after}. */
import { copyButton, h } from './dom.js';
import { compact, words } from './format.js';

const SHOWN = 100;            /* objects; more are only counted */
const TEXT_MAX = 200 * 1024;  /* characters of raw text on the screen */
const VERB = { add: 'New', remove: 'Removed', replace: 'Changed' };

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function fields(change) {
	const before = change.before || {}, after = change.after || {};
	return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((key) => !same(before[key], after[key]));
}

function object(change) {
	const keys = fields(change);
	return h('section', { class: `change ${change.op}` },
		h('h3', {}, VERB[change.op] || change.op, ': ', h('bdi', {}, change.path)),
		h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Field'), h('th', { scope: 'col' }, 'Before'), h('th', { scope: 'col' }, 'After'))),
			h('tbody', {}, keys.map((key) => h('tr', {}, h('th', { scope: 'row' }, words(key)),
				h('td', { class: 'was' }, change.before ? compact(change.before[key]) : '—'),
				h('td', { class: 'is' }, change.after ? compact(change.after[key]) : '—'))))));
}

/* A long text in a box of its own, with a way to copy it. */
export function textBox(text, label) {
	const cut = text.length > TEXT_MAX;
	return h('div', { class: 'text-box' }, copyButton(text),
		h('pre', { tabIndex: 0, role: 'region', 'aria-label': label }, cut ? text.slice(0, TEXT_MAX) : text),
		cut ? h('p', { class: 'hint' }, `Only the first ${TEXT_MAX / 1024} KiB are shown; Copy takes all.`) : null);
}

export function changes(list) {
	if (!list || !list.length)
		return h('p', {}, 'No difference.');
	return h('div', { class: 'changes' }, list.slice(0, SHOWN).map(object),
		list.length > SHOWN ? h('p', {}, `… and ${list.length - SHOWN} more objects.`) : null,
		h('details', {}, h('summary', {}, 'As JSON'), textBox(JSON.stringify(list, null, 2), 'The difference as JSON')));
}
