/*
 * Lists and forms of the configured resources: one page for all of them, with
 * what is special to a kind in the table KINDS.
 */
import { get, getIfThere, may, Problem, request, resourceOf, segment } from '../api.js';
import { badge, button, copyButton, fill, h, id, toast } from '../dom.js';
import { bits, bytes, compact, count, micros, when, words } from '../format.js';
import { dialog } from '../dialog.js';
import { Form } from '../form.js';
import { head, into } from '../page.js';
import { save } from '../save.js';
import { Table } from '../table.js';
import { targetState } from '../health.js';
import { targetsPanel } from './targets.js';

const PAGE = 500;
const BUSIEST = 200;
const SEARCH_MS = 250;

const any = (list) => (list && list.length ? list.join(', ') : 'any');
const rateOf = (seen) => (seen ? bits(seen.rates.bytes_to_target + seen.rates.bytes_to_client) : '–');
/* How long it took at most, since the start, until a target's first byte came, of 99 of 100 connections. */
const firstByteOf = (seen) => (seen?.histograms?.first_byte?.count ? micros(seen.histograms.first_byte.p99) : '–');

const KINDS = {
	listeners: {
		one: 'listener', title: 'Listeners', stats: 'listeners', about: 'What is intercepted, and what happens to it.',
		columns: (stats) => [
			{ title: 'State', width: '6.5rem', small: '5.5rem', cell: (row) => (row.enabled ? badge(row.action, row.action === 'relay' ? 'good' : 'idle') : badge('disabled', 'idle')) },
			{ title: 'Matches', width: 'minmax(10rem, 3fr)', wide: true, cell: (row) => `${row.protocol} ${any(row.destinations)} : ${any(row.ports)}` },
			{ title: 'Upstream', width: 'minmax(8.5rem, 1fr)', wide: true, cell: (row) => (row.action !== 'relay' ? '' : row.upstream ? h('a', { href: `#/upstreams/${segment(row.upstream)}` }, row.upstream) : 'own destination') },
			{ title: 'Flows', width: '5rem', small: '4rem', end: true, cell: (row) => count(stats.get(row.name)?.flows_active ?? 0) },
			{ title: 'First byte, 99 %', width: '8.5rem', end: true, wide: true, cell: (row) => firstByteOf(stats.get(row.name)) },
			{ title: 'Now', width: '7rem', end: true, wide: true, cell: (row) => rateOf(stats.get(row.name)) },
		],
	},
	upstreams: {
		one: 'upstream', title: 'Upstreams', stats: 'upstreams', about: 'Pools of targets that listeners relay to.',
		columns: (stats) => [
			{ title: 'Targets', width: 'minmax(8rem, 2fr)', cell: (row) => targetSummary(row.targets) },
			{ title: 'Algorithm', width: '8rem', wide: true, cell: (row) => words(row.algorithm) },
			{ title: 'Health check', width: '7rem', wide: true, cell: (row) => row.health.type },
			{ title: 'Flows', width: '5rem', small: '4rem', end: true, cell: (row) => count(stats.get(row.name)?.flows_active ?? 0) },
			{ title: 'First byte, 99 %', width: '8.5rem', end: true, wide: true, cell: (row) => firstByteOf(stats.get(row.name)) },
			{ title: 'Now', width: '7rem', end: true, wide: true, cell: (row) => rateOf(stats.get(row.name)) },
		],
		panel: targetsPanel,
	},
	'rate-limits': {
		one: 'rate_limit', title: 'Rate limits', stats: 'rate_limits', statsPath: 'stats/rate-limits', about: 'How much a source, a prefix, a listener or a flow may have. A shadow limit only counts: try it before you enforce it.',
		columns: (stats) => [
			{ title: 'Mode', width: '6rem', small: '5rem', cell: (row) => badge(row.mode, row.mode === 'enforce' ? 'good' : 'warn') },
			{ title: 'Limit', width: 'minmax(9rem, 2fr)', small: 'minmax(5rem, 2fr)', cell: (row) => (row.metric === 'concurrent_connections' ? `${row.rate} at once` : row.metric === 'bytes' ? `${bytes(row.rate)} / ${row.per}` : `${row.rate} ${words(row.metric)} / ${row.per}`) },
			{ title: 'Of each', width: '8rem', wide: true, cell: (row) => words(row.key) },
			{ title: 'Excess', width: '6rem', wide: true, cell: (row) => row.action },
			{ title: 'Placed in', width: '6rem', wide: true, cell: (row) => placement(row, stats.get(row.name)) },
			{ title: 'Over it', width: '8rem', wide: true, end: true, cell: (row) => excess(stats.get(row.name)) },
		],
	},
	prefilters: {
		one: 'prefilter', title: 'Prefilters', stats: 'prefilters', key: 'interface', about: 'What is dropped at an interface before the network stack sees it.',
		columns: () => [
			{ title: 'State', width: '6.5rem', cell: (row) => badge(row.enabled ? row.observed.state : 'disabled', !row.enabled ? 'idle' : row.observed.state === 'on' ? 'good' : 'warn') },
			{ title: 'Mode', width: '6rem', wide: true, cell: (row) => (row.observed.state === 'on' ? row.observed.mode : row.mode) },
			{ title: 'Drops', width: 'minmax(8rem, 2fr)', wide: true, cell: (row) => [`${row.deny.length} denied`, row.drop_bogons && 'bogons', row.drop_fragments && 'fragments', row.only_listener_ports && 'other ports', row.source_pps.rate && `over ${row.source_pps.rate} packets/s`, row.syn_cookies !== 'off' && 'SYNs, by cookies'].filter(Boolean).join(', ') },
			{ title: 'Dropped', width: '6rem', wide: true, end: true, cell: (row) => dropped(row.observed) },
		],
		panel: ({ upstream: row }) => observedPanel(row.observed),
	},
	tokens: {
		one: 'token', title: 'Tokens', about: 'Who may use the API and this page. A token is shown once, when it is made.', role: 'admin',
		columns: () => [
			{ title: 'Role', width: '6.5rem', cell: (row) => badge(row.role, row.role === 'admin' ? 'warn' : 'idle') },
			{ title: 'Expires', width: 'minmax(8rem, 2fr)', cell: (row) => (row.expires_at ? when(row.expires_at) : 'never') },
		],
		made: (data) => data?.token && dialog({
			title: 'The new token', content: [h('p', {}, 'It is shown only now; the gateway keeps no copy.'), h('div', { class: 'text-box' }, copyButton(data.token), h('pre', { tabIndex: 0 }, data.token))],
			buttons: [{ text: 'I have it', kind: 'primary', value: true }],
		}),
	},
};

function targetSummary(targets) {
	if (!targets.length)
		return badge('no targets', 'warn');
	const kinds = targets.map((one) => targetState(one));
	const bad = kinds.filter((one) => one.kind === 'bad').length, out = kinds.filter((one) => /drain|down/.test(one.word)).length;
	return [badge(bad ? `${bad} of ${targets.length} failed` : `${targets.length} in service`, bad ? 'bad' : 'good'), out ? badge(`${out} drained or down`, 'warn') : null];
}

/* Packets that a prefilter has not let through; a request that it has answered is none. */
const PASSED = new Set(['passed', 'allowed', 'syn_cookie_sent', 'syn_cookie_ok', 'syn_cookie_bad']);
const dropped = (seen) => (seen.reasons ? count(Object.entries(seen.reasons).reduce((all, [name, one]) => (PASSED.has(name) ? all : all + one.packets), 0)) : '–');

function observedPanel(seen) {
	const reasons = Object.entries(seen.reasons || {}).filter(([, one]) => one.packets);
	return h('section', { class: 'panel', 'aria-label': 'Observed' }, h('h2', {}, 'Right now'),
		h('p', {}, badge(seen.state, seen.state === 'on' ? 'good' : 'warn'), ' ', seen.state === 'on' ? `runs in mode ${seen.mode}` : 'not in force', seen.why ? `: ${seen.why}` : ''),
		h('p', { class: 'hint' }, `${count(seen.bans)} sources banned by itself, of at most ${count(seen.bans_max)}; as of revision ${seen.generation}`),
		seen.syn_cookies.state === 'off' ? null : h('p', { class: 'hint' }, `SYN cookies: ${seen.syn_cookies.state}${seen.syn_cookies.why ? `: ${seen.syn_cookies.why}` : ''}`),
		reasons.length ? h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Reason'), h('th', { scope: 'col', class: 'end' }, 'Packets'))),
			h('tbody', {}, reasons.map(([name, one]) => h('tr', {}, h('th', { scope: 'row' }, words(name)), h('td', { class: 'end' }, count(one.packets)))))) : null);
}

const placement = (row, seen) => compact(row.placement ?? seen?.placement ?? null);

/* How often a limit was exceeded: with mode shadow, how often it would have acted. Of flows, how many came to the rate. */
function excess(seen) {
	if (!seen)
		return '–';
	if (seen.placement === 'relay')
		return `${count(seen.flows_at_rate)} of ${count(seen.flows)} flows`;
	return seen.over === undefined ? '–' : count(seen.over);
}

const keyOf = (kind, row) => row[kind.key || 'name'];

/* --- the list --- */

async function busiest(kind, map) {
	if (!kind.stats)
		return;
	const told = kind.statsPath ? (await getIfThere(`${kind.statsPath}?limit=${BUSIEST}`))?.items : (await get(`stats?limit=${BUSIEST}`))[kind.stats];
	map.clear();
	for (const one of Array.isArray(told) ? told : Object.entries(told || {}).map(([name, value]) => ({ name, ...value })))
		map.set(one.name, one);
}

async function list({ content, scope, path, kind }) {
	const stats = new Map(), filter = h('input', { type: 'search', id: id('q'), autocomplete: 'off', spellcheck: 'false' });
	const total = h('span', { class: 'hint', role: 'status' });
	const table = new Table({
		label: kind.title, empty: `No ${kind.title.toLowerCase()} yet.`, key: (row) => keyOf(kind, row),
		columns: [{ title: kind.key ? words(kind.key) : 'Name', width: 'minmax(8rem, 2fr)', cell: (row) => [h('a', { href: `#/${path}/${segment(keyOf(kind, row))}` }, h('bdi', {}, keyOf(kind, row))), row.comment ? h('span', { class: 'hint cut' }, ' ', row.comment) : null] }, ...kind.columns(stats)],
		page: async (after) => {
			const name = filter.value.trim();
			const page = await get(`${path}?limit=${PAGE}${after ? `&after=${segment(after)}` : ''}${name ? `&name=${segment(name)}*` : ''}`);
			fill(total, `${page.total} in all`);
			return page;
		},
	});
	let timer;
	filter.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(() => table.load(), SEARCH_MS); });
	fill(content, head(kind.title, kind.about, may(kind.role || 'admin') ? h('a', { class: 'button primary', href: `#/${path}?new=1` }, `New ${words(kind.one)}`) : null),
		h('div', { class: 'row tools' }, h('label', { htmlFor: filter.id }, 'Name begins with'), filter, total), table.element);
	scope.onEnd(() => table.end());
	scope.on(['revision', 'health', 'target'], () => table.load());
	await busiest(kind, stats).catch(() => {});
	await table.load();
	if (kind.stats)
		scope.every(3000, async () => { await busiest(kind, stats); table.draw(true); });
}

/* --- one object --- */

const FORBIDDEN = { name: true, interface: true };

/* What the form has, as a write: a new object, or the replacement of the one that was read. */
function writeOf(path, name, body, etag) {
	return name === null ? { method: 'POST', path, body }
		: { method: 'PUT', path: `${path}/${segment(name)}`, body, headers: etag ? { 'If-Match': etag } : {} };
}

async function submit({ form, path, name, etag, kind, done }) {
	form.clear();
	try {
		const title = name === null ? `New ${words(kind.one)}` : `Change ${words(kind.one)} ${name}`;
		const answer = await save(title, writeOf(path, name, form.read(), etag));
		if (answer)
			await done(answer);
	} catch (problem) {
		if (!(problem instanceof Problem))
			throw problem;
		if (problem.status === 412)
			form.show(new Problem(412, { detail: 'Somebody else changed this meanwhile. Open it anew to see what it is now.' }));
		else
			form.show(problem);
	}
}

async function remove({ path, name, kind }) {
	try {
		if (await save(`Delete ${words(kind.one)} ${name}`, { method: 'DELETE', path: `${path}/${segment(name)}` }))
			location.hash = `#/${path}`;
	} catch (problem) {
		await dialog({ title: 'It cannot be deleted', content: [h('p', {}, problem.message), h('ul', {}, (problem.errors || []).map((one) => h('li', {}, one.detail)))], buttons: [{ text: 'Close', value: true }] });
	}
}

/* Not to lose what was typed by a wrong click. */
function guard(scope, form) {
	const before = JSON.stringify(form.read());
	const warn = (event) => { if (JSON.stringify(form.read()) !== before && form.element.isConnected) event.preventDefault(); };
	window.addEventListener('beforeunload', warn);
	scope.onEnd(() => window.removeEventListener('beforeunload', warn));
}

async function edit({ content, scope, path, kind, name, from }) {
	const resource = await resourceOf(kind.one);
	const source = name ?? from;
	const { data, etag } = source ? await request('GET', `${path}/${segment(source)}`) : { data: {}, etag: null };
	const value = { ...data };
	if (name === null)
		delete value[kind.key || 'name'];
	const form = await Form.make(resource, value, { locked: name === null ? [] : Object.keys(FORBIDDEN) });
	const apply = () => submit({ form, path, name, etag, kind, done: async ({ data: made }) => {
		await kind.made?.(made);
		scope.end();
		location.hash = name === null ? `#/${path}/${segment(keyOf(kind, made))}` : `#/${path}`;
	} }).catch((error) => toast(error.message, 'bad'));

	const writer = may('admin');
	const box = h('form', { novalidate: true }, form.element, writer ? h('div', { class: 'row sticky' },
		h('button', { type: 'submit', class: 'primary' }, 'Review and apply'), h('a', { class: 'button', href: `#/${path}` }, 'Back'),
		h('span', { class: 'spring' }),
		name === null ? null : h('a', { class: 'button', href: `#/${path}?new=1&from=${segment(name)}` }, 'Make a copy'),
		name === null ? null : button('Delete', () => remove({ path, name, kind }), 'danger')) : h('p', { class: 'note' }, 'Your token may look, not change.'));
	box.addEventListener('submit', (event) => { event.preventDefault(); apply(); });
	fill(content, head(name === null ? `New ${words(kind.one)}` : name, name === null ? kind.about : [`${words(kind.one)}, as of `, h('a', { href: `#/revisions/${(etag || '').replaceAll('"', '')}` }, `revision ${(etag || '').replaceAll('"', '')}`)]),
		name !== null && kind.panel ? await kind.panel({ scope, upstream: data }) : null, box);
	guard(scope, form);
}

export default async function resources({ content, scope, segments: [path, name], query }) {
	const kind = KINDS[path];
	if (name || query.get('new'))
		await into(content, async () => {
			const place = h('div');
			await edit({ content: place, scope, path, kind, name: name || null, from: query.get('from') });
			return place;
		});
	else
		await list({ content, scope, path, kind });
}
