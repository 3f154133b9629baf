/* The first page: the picture, the last hour, and what is wrong. */
import { get, getIfThere, segment } from '../api.js';
import { badge, fill, h } from '../dom.js';
import { bits, bytes, count, duration, micros, perSecond, several, words } from '../format.js';
import { Chart } from '../chart.js';
import { Picture } from '../picture.js';
import { head } from '../page.js';
import { ledgerTable } from '../ledger.js';
import { problems, targetLabel, targetName, targetState } from '../health.js';

const SHOWN = 50;         /* busiest objects asked for */
const KEEP_ROWS = 400;    /* an hour in steps of ten seconds, and some */
const OWN = 'upstream ';  /* the node of listeners that go to the packet's own destination */
const CLIENTS = 8;
const OBSERVED = 12; /* upstreams whose targets are asked for one by one: what is observed is not in the list */

/* --- the last hour --- */

/* Half of all, 95 and 99 of 100 took no longer; null where nothing was measured. */
function latency(title, name) {
	const series = [['p50', 'c1'], ['p95', 'c5'], ['p99', 'c4']];
	return [new Chart({ title, format: micros, series: series.map(([part, cls]) => ({ name: part, cls })) }),
		series.map(([part]) => `${name}_${part}`), false];
}

class Hour {
	constructor() {
		this.charts = [
			[new Chart({ title: 'Throughput', format: bits, series: [{ name: 'to clients', cls: 'c1' }, { name: 'to targets', cls: 'c2' }] }), ['bytes_to_client', 'bytes_to_target'], true],
			[new Chart({ title: 'New connections', format: perSecond, series: [{ name: 'begun', cls: 'c1' }] }), ['flows_opened'], true],
			[new Chart({ title: 'Flows at the same time', format: count, series: [{ name: 'flows', cls: 'c3' }] }), ['flows_active'], false],
			[new Chart({ title: 'Drops', format: perSecond, series: [{ name: 'refused', cls: 'c4' }, { name: 'connects failed', cls: 'c5' }, { name: 'reset', cls: 'c6' }] }), ['refused', 'connect_failed', 'flows_reset'], true],
			latency('Connect time', 'connect_time'),
			latency('First byte', 'first_byte'),
		];
		this.element = h('div', { class: 'charts' }, this.charts.map(([chart]) => chart.element));
		this.rows = [];
	}

	async look() {
		/* The newest step may not have been over: it is asked for again. */
		const after = this.rows.at(-2)?.[0] ?? 0;
		const told = await get(`stats/history?step=10&after=${after}`);
		this.columns = told.columns;
		this.rows = this.rows.filter((row) => row[0] <= after).concat(told.rows).slice(-KEEP_ROWS);
		for (const [chart, names, perSecondOf] of this.charts) {
			const at = names.map((name) => told.columns.indexOf(name));
			chart.set(this.rows.map((row) => [row[0], ...at.map((i) => (perSecondOf ? (row[i] ?? 0) / (row[1] || 1) : row[i] ?? null))]), told.step_s);
		}
	}

	end() { this.charts.forEach(([chart]) => chart.end()); }
}

/* --- the picture --- */

const rate = (one) => (one ? one.rates.bytes_to_target + one.rates.bytes_to_client : 0);

/* Busy ones first, then the others in the order of their names. */
function ordered(configured, stats, key) {
	const busy = new Map(stats.map((one, i) => [key(one), i]));
	return [...configured].sort((a, b) => (busy.get(a.id) ?? 1e6) - (busy.get(b.id) ?? 1e6));
}

function upstreamsOf(listener) {
	const names = [listener.upstream, ...(listener.routes || []).filter((one) => one.action === 'relay').map((one) => one.upstream)];
	return [...new Set(names.map((name) => name || ''))];
}

function drawPicture(picture, { stats, listeners, upstreams, clients }) {
	const ofListener = new Map(stats.listeners.map((one) => [one.name, one]));
	const ofUpstream = new Map(stats.upstreams.map((one) => [one.name, one]));
	const ofTarget = new Map(stats.targets.map((one) => [`${one.upstream} ${one.target}`, one]));
	const total = Math.max(clients.reduce((all, one) => all + one.flows, 0), 1);
	const links = [], nodes = { client: [], listener: [], upstream: [], target: [] };

	const shown = ordered(listeners.map((one) => ({ ...one, id: one.name })), stats.listeners, (one) => one.name);
	for (const one of shown) {
		const seen = ofListener.get(one.name), relays = one.action === 'relay';
		nodes.listener.push({ id: `listener ${one.name}`, name: one.name, href: `#/listeners/${segment(one.name)}`, rate: rate(seen),
			flows: seen?.flows_active, state: one.enabled ? relays ? null : one.action : 'disabled', kind2: one.enabled ? null : 'idle' });
		if (relays && one.enabled)
			for (const name of upstreamsOf(one))
				links.push([`listener ${one.name}`, `${OWN}${name}`, rate(seen) / upstreamsOf(one).length]);
	}
	for (const client of clients)
		nodes.client.push({ id: `client ${client.group}`, name: client.group, href: `#/flows?client=${encodeURIComponent(client.group)}`, note: `${several(client.flows, 'flow')} · ${bytes(client.bytes_to_target + client.bytes_to_client)}` });
	for (const client of clients)
		for (const one of stats.listeners)
			if (one.flows_active)
				links.push([`client ${client.group}`, `listener ${one.name}`, rate(one) * client.flows / total]);
	if (listeners.some((one) => one.action === 'relay' && upstreamsOf(one).includes('')))
		nodes.upstream.push({ id: OWN, name: 'own destination', note: 'where the packet was going' });
	for (const one of ordered(upstreams.map((u) => ({ ...u, id: u.name })), stats.upstreams, (u) => u.name)) {
		const seen = ofUpstream.get(one.name);
		const states = one.targets.map(targetState);
		const bad = states.filter((state) => state.kind === 'bad').length;
		nodes.upstream.push({ id: `${OWN}${one.name}`, name: one.name, href: `#/upstreams/${segment(one.name)}`, rate: rate(seen), flows: seen?.flows_active,
			state: bad ? `${bad} of ${states.length} failed` : null, kind2: bad ? 'bad' : null });
		one.targets.forEach((target, i) => {
			const told = ofTarget.get(`${one.name} ${targetName(target)}`), id = `target ${one.name} ${targetName(target)}`;
			nodes.target.push({ id, name: targetLabel(target), href: `#/upstreams/${segment(one.name)}`, rate: rate(told), flows: told?.flows_active, state: states[i].word, kind2: states[i].kind });
			links.push([`${OWN}${one.name}`, id, rate(told), states[i].kind === 'bad' ? 'bad' : states[i].kind === 'warn' ? 'warn' : '']);
		});
	}
	const order = { bad: 0, warn: 1 };
	nodes.target.sort((a, b) => (order[a.kind2] ?? 2) - (order[b.kind2] ?? 2) || b.rate - a.rate);
	picture.set(nodes, links);
}

/* --- figures and reasons --- */

function tile(title, value, note) {
	return h('div', { class: 'tile' }, h('span', { class: 'tile-title' }, title), h('span', { class: 'tile-value' }, value), note ? h('span', { class: 'hint' }, note) : null);
}

function tiles(stats, status) {
	const connect = stats.histograms.connect_time, first = stats.histograms.first_byte;
	return [
		tile('Flows now', count(stats.flows_active), `${count(stats.counters.flows_opened)} since the start`),
		tile('Throughput', bits(stats.rates.bytes_to_target + stats.rates.bytes_to_client), 'both directions'),
		tile('New connections', perSecond(stats.rates.flows_opened), `average over ${stats.rates.window_s} s`),
		tile('Connect time', connect?.count ? micros(connect.p50) : '–', connect?.count ? `99 of 100 within ${micros(connect.p99)}` : 'nothing measured yet'),
		tile('First byte', first?.count ? micros(first.p50) : '–', first?.count ? `99 of 100 within ${micros(first.p99)}` : 'nothing measured yet'),
		tile('Relay', status.relay.state, `up ${duration(status.relay.uptime_s)}, revision ${status.revision}`),
	];
}

const REASON = /^(refused_|connect_failed|connect_timeout|udp_dropped|udp_malformed|udp_refused|udp_evicted|source_ports_exhausted|idle_timeout|killed|route_rejected|flows_lost|limit)/;

/* Counters that say why something did not come through, and those of the kernel that dropped. */
function reasons(stats, first) {
	const rows = Object.entries(stats.counters).filter(([name, value]) => REASON.test(name) && value)
		.map(([name, value]) => [words(name), value, value - (first?.counters[name] ?? value)]);
	for (const [name, value] of Object.entries(stats.nft || {}))
		if (/drop|reject|fail|no_|limit/.test(name) && value.packets)
			rows.push([`${words(name)} (kernel, packets)`, value.packets, value.packets - (first?.nft?.[name]?.packets ?? value.packets)]);
	if (!rows.length)
		return h('p', { class: 'hint' }, 'Nothing was dropped, refused or ended by the gateway since it started.');
	return h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Reason'), h('th', { scope: 'col', class: 'end' }, 'In all'), h('th', { scope: 'col', class: 'end' }, 'Since you look'))),
		h('tbody', {}, rows.sort((a, b) => b[1] - a[1]).map(([name, all, now]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', { class: 'end' }, count(all)), h('td', { class: 'end' }, now ? `+${count(now)}` : '0')))));
}

function wrongs(list) {
	if (!list.length)
		return h('p', { class: 'all-well' }, badge('all well', 'good'), ' Nothing is wrong right now.');
	return h('ul', { class: 'wrongs' }, list.map((one) => h('li', {}, badge(one.kind === 'bad' ? 'wrong' : 'note', one.kind), ' ', h('span', {}, one.text), one.href ? [' ', h('a', { href: one.href }, one.link)] : null)));
}

export default async function overview({ content, scope }) {
	const hour = new Hour(), picture = new Picture();
	const places = { wrong: h('div'), tiles: h('div', { class: 'tiles' }), reasons: h('div'), ledger: h('div') };
	const slow = { listeners: [], upstreams: [], doctor: null, clients: [] };
	let first = null;

	fill(content, head('Overview', 'Who talks to whom right now.'),
		h('section', { class: 'panel', 'aria-label': 'What is wrong' }, h('h2', {}, 'Right now'), places.wrong), places.tiles,
		h('section', { class: 'panel', 'aria-label': 'Picture' }, h('h2', {}, 'The way of the traffic'), picture.element),
		h('section', { class: 'panel', 'aria-label': 'The last hour' }, h('h2', {}, 'The last hour'), hour.element),
		h('section', { class: 'panel', 'aria-label': 'Drops by reason' }, h('h2', {}, 'What did not come through, by reason'), places.reasons),
		h('section', { class: 'panel', 'aria-label': 'Ledger' }, h('h2', {}, 'What became of what came in'), places.ledger));
	scope.onEnd(() => { hour.end(); picture.end(); });

	const look = async () => {
		const [listeners, upstreams, doctor, ledger] = await Promise.all([get(`listeners?limit=${SHOWN}`), get(`upstreams?limit=${SHOWN}`), getIfThere('doctor'), getIfThere('stats/ledger')]);
		fill(places.ledger, ledgerTable(ledger));
		const observed = await Promise.all(upstreams.items.slice(0, OBSERVED).map((one) => get(`upstreams/${segment(one.name)}/targets`)));
		observed.forEach((told, i) => { upstreams.items[i].targets = told.items ?? told; });
		Object.assign(slow, { listeners: listeners.items, upstreams: upstreams.items, doctor });
		if (!listeners.total && !sessionStorage.getItem('gatewayd.started')) {
			sessionStorage.setItem('gatewayd.started', '1');
			location.hash = '#/start';
		}
	};
	const draw = async () => {
		const [stats, status, clients] = await Promise.all([get(`stats?limit=${SHOWN}`), get('status'), get(`flows?group=client&limit=${CLIENTS}`)]);
		first = first || stats;
		slow.clients = clients.items;
		fill(places.tiles, tiles(stats, status));
		fill(places.reasons, reasons(stats, first));
		drawPicture(picture, { stats, ...slow });
		const list = problems({ status, history: { columns: hour.columns || [], rows: hour.rows }, upstreams: slow.upstreams, doctor: slow.doctor });
		const signature = JSON.stringify(list);
		if (signature !== places.signature)
			fill(places.wrong, wrongs(list));
		places.signature = signature;
	};
	await look();
	scope.every(10000, look);
	scope.every(3000, () => hour.look());
	scope.on(['revision', 'health', 'ejected', 'target', 'drift', 'relay', 'pending'], () => { look().then(draw).catch(() => {}); });
	await scope.every(2000, draw);
}
