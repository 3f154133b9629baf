/* Real packets of a flow: what they meet in the kernel, as they come. */
import { get, Problem, request } from '../api.js';
import { badge, button, fill, h } from '../dom.js';
import { words } from '../format.js';
import { packetForm } from '../packetform.js';
import { head, notThere, trouble } from '../page.js';

const FIELDS = [['protocol', 'Protocol', ['tcp', 'udp']], ['source', 'Source address'], ['source_port', 'Source port'],
	['destination', 'Destination address'], ['destination_port', 'Destination port'], ['seconds', 'Seconds'], ['packets', 'Packets']];
const BAD = /reject|drop|ban|limit|no_socket|prefilter/;
const OVER = { time: 'Its time is over.', packets: 'As many packets as wanted were seen.', ended: 'It was ended.' };
const SHOWN_MAX = 200;

const kindOf = (verdict) => (BAD.test(verdict) ? 'bad' : verdict === 'pass' ? 'idle' : 'good');
const end = (address, port) => `${address} port ${port}`;

function step(one) {
	return h('tr', {}, h('td', {}, `${one.table} ${one.chain}`), h('td', {}, one.to ? `${one.verdict} ${one.to}` : one.verdict),
		h('td', {}, h('code', {}, one.rule ?? one.reason ?? (one.handle ? `rule with handle ${one.handle}` : one.policy ? 'policy of the chain' : 'end of the chain'))));
}

function packet(one) {
	return h('li', { class: `stage ${kindOf(one.verdict)}` },
		h('div', { class: 'row' }, badge(words(one.verdict), kindOf(one.verdict)), h('strong', {}, `${end(one.source, one.source_port)} → ${end(one.destination, one.destination_port)}`),
			one.flags ? h('span', {}, one.flags) : null, one.interface ? h('span', {}, `in at ${one.interface}`) : null,
			one.listener ? h('span', {}, `listener ${one.listener}`) : null, one.limit ? h('span', {}, `rate limit ${one.limit}`) : null),
		h('details', {}, h('summary', {}, `${one.steps.length} rules`), h('div', { class: 'scroll-x', tabIndex: 0, role: 'region', 'aria-label': 'Rules' },
			h('table', {}, h('thead', {}, h('tr', {}, ['Where', 'What', 'Rule'].map((text) => h('th', { scope: 'col' }, text)))), h('tbody', {}, one.steps.map(step))))));
}

export default function trace({ content, query, scope }) {
	const list = h('ol', { class: 'stages packets', reversed: true }), state = h('div', { role: 'status' });
	let current = null, shown = 0;
	const over = (why) => fill(state, h('p', {}, `${shown} packets. ${OVER[why] ?? why}`));
	const take = (one) => {
		shown++;
		list.prepend(packet(one));
		if (list.children.length > SHOWN_MAX)
			list.lastChild.remove();
	};
	const stop = async () => {
		try {
			await request('DELETE', `trace/${current}`);
		} catch (problem) {
			fill(state, trouble(problem));
		}
	};
	const send = async (body) => {
		const { data } = await request('POST', 'trace', { body });
		current = data.id;
		shown = 0;
		fill(list);
		fill(state, h('div', { class: 'row' }, h('p', {}, 'Waiting for packets of this flow, in both directions.'), button('Stop', stop)));
		const seen = await get(`trace/${current}`); /* what came before this page listened */
		seen.packets.slice(shown).forEach(take);
		if (seen.why)
			over(seen.why);
	};
	const form = packetForm(FIELDS, query, 'Trace', send, (problem, elsewhere) => fill(state,
		problem instanceof Problem && [404, 405].includes(problem.status) ? notThere('POST /api/v1/trace') : elsewhere ? trouble(problem) : null));
	scope.on(['trace'], ({ data }) => { if (data.trace === current) take(data); });
	scope.on(['trace_end'], ({ data }) => { if (data.trace === current) over(data.why); });
	fill(content, head('Trace', 'Real packets of one flow: every rule that they meet, and what became of them. It ends by itself.'), form, state, list);
}
