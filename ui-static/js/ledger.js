/* What became of the packets that came in, by interface: the table of GET /stats/ledger. */
import { badge, h } from './dom.js';
import { count, words } from './format.js';

const RELAYED = /^(relay_|shortcut_(udp|tcp)$)/, DROPPED = new Set(['banned', 'limited', 'rejected', 'dropped', 'no_listener_socket', 'shortcut_dropped']), KEPT = new Set(['passed', 'allowed']);

const sum = (outcomes, wanted) => Object.entries(outcomes || {}).reduce((all, [name, one]) => (wanted(name) ? all + one.packets : all), 0);

/* "12 rejected, 3 banned": those that have counted anything. */
const named = (outcomes, wanted) => Object.entries(outcomes || {}).filter(([name, one]) => wanted(name) && one.packets)
	.map(([name, one]) => `${count(one.packets)} ${words(name)}`).join(', ');

function row(one) {
	const drop = (name) => DROPPED.has(name), filtered = (name) => !KEPT.has(name), other = (name) => !drop(name) && !RELAYED.test(name);
	const all = [['prefilter', named(one.link?.prefilter, filtered)], ['rules', named(one.stack.outcomes, drop)]].filter(([, text]) => text);
	return h('tr', {}, h('th', { scope: 'row' }, one.interface),
		h('td', { class: 'end' }, count(one.stack.in.packets)),
		h('td', { class: 'end' }, count(sum(one.stack.outcomes, (name) => RELAYED.test(name)))),
		h('td', {}, all.length ? all.map(([who, text], i) => [i ? '; ' : '', `${who}: ${text}`]) : '–'),
		h('td', {}, named(one.stack.outcomes, other) || '–'),
		h('td', { class: 'end' }, one.rest ? badge(String(one.rest), 'warn') : '0'));
}

export function ledgerTable(told) {
	if (!told?.interfaces.length)
		return h('p', { class: 'hint' }, 'Nothing has come in yet.');
	return h('div', { class: 'scroll-x', tabIndex: 0, role: 'region', 'aria-label': 'Packets by interface' }, h('table', {},
		h('thead', {}, h('tr', {}, ['Interface', 'Packets in', 'Relayed', 'Dropped', 'Passed on, or to all', 'Rest'].map((title, i) => h('th', { scope: 'col', class: i === 1 || i === 2 || i === 5 ? 'end' : '' }, title)))),
		h('tbody', {}, told.interfaces.map(row))));
}
