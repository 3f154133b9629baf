/* Live flows: sorted, filtered, grouped, ended. */
import { get, may, Problem, request } from '../api.js';
import { badge, button, fill, h, id, toast } from '../dom.js';
import { bytes, count, duration, endpoint, micros, when } from '../format.js';
import { ask } from '../dialog.js';
import { head } from '../page.js';
import { Table } from '../table.js';

const LIVE_MS = 3000;
/* The first page is read every few seconds, the others when they are scrolled to. */
const FIRST = 200, PAGE = 1000;
const FILTERS = [['client', 'Client or prefix'], ['listener', 'Listener'], ['upstream', 'Upstream'], ['target', 'Target'], ['sni', 'Server name']];
const SORTS = [['bytes', 'most bytes first'], ['age', 'oldest first'], ['rtt', 'slowest round trip first'], ['', 'all, unsorted']];
const GROUPS = [['', 'each flow'], ['client', 'by client'], ['listener', 'by listener'], ['upstream', 'by upstream'], ['target', 'by target'], ['sni', 'by server name'], ['client,sni', 'who talks to whom'], ['client,destination', 'who talks to where']];

const moved = (row) => row.to_target.bytes + row.to_client.bytes;

/* Where there is little room, without the smaller unit. */
function age(row) {
	const [first, second] = duration(row.age_ms / 1000).split(' ');
	return [first, second ? h('span', { class: 'wide-only' }, ` ${second}`) : null];
}

const rtt = (row) => micros(row.client_tcp?.rtt_us);

/* The rate of each direction by the listener's limit of key flow; one that only counts holds nothing. */
function heldTo({ shaping }) {
	if (!shaping)
		return '';
	const text = `${bytes(shaping.bytes_per_second)}/s`;
	return h('span', { title: `${shaping.rate_limit}, ${shaping.mode}`, class: shaping.mode === 'shadow' ? 'hint' : '' }, text);
}

async function kill(row, reload) {
	const text = `${row.protocol} from ${endpoint(row.client)} to ${endpoint(row.target)}, ${bytes(moved(row))} in ${duration(row.age_ms / 1000)}. Both sides get a reset.`;
	if (!await ask('End this flow?', text, 'End it', 'danger'))
		return;
	try {
		await request('DELETE', `flows/${row.id}`);
		toast('The flow was ended.', 'good');
	} catch (error) {
		toast(error instanceof Problem && error.status === 404 ? 'It had already ended.' : error.message, error.status === 404 ? '' : 'bad');
	}
	await reload();
}

function flowColumns(reload) {
	return [
		{ title: 'Client', width: 'minmax(9rem, 3fr)', cell: (row) => endpoint(row.client) },
		{ title: 'Target', width: 'minmax(9rem, 3fr)', wide: true, cell: (row) => endpoint(row.target) || endpoint(row.original) },
		{ title: 'Listener', width: 'minmax(6rem, 1fr)', wide: true, cell: (row) => row.listener ?? '–' },
		{ title: 'Server name', width: 'minmax(6rem, 2fr)', wide: true, cell: (row) => (row.sni === null ? '' : h('bdi', {}, row.sni)) },
		{ title: 'State', width: '5.5rem', wide: true, cell: (row) => badge(row.state === 'relaying' ? row.protocol : row.state, row.state === 'relaying' ? 'good' : 'idle') },
		{ title: 'Moved', width: '5rem', small: '4.7rem', end: true, cell: (row) => bytes(moved(row)) },
		{ title: 'Age', width: '5.2rem', small: '4rem', end: true, cell: age },
		{ title: 'Round trip', width: '5.4rem', wide: true, end: true, cell: rtt },
		{ title: 'By', width: '4.3rem', wide: true, cell: (row) => row.to_client.mover },
		{ title: 'Held to', width: '5.5rem', wide: true, end: true, cell: heldTo },
		...may('operator') ? [{ title: 'Do', width: '4.2rem', small: '3.6rem', cell: (row) => button('End', () => kill(row, reload), 'small danger', { 'aria-label': `End the flow of ${endpoint(row.client)}` }) }] : [],
	];
}

const groupColumns = (ended) => [
	{ title: 'Group', width: 'minmax(8rem, 3fr)', cell: (row) => (row.group === null ? 'none' : h('bdi', {}, row.group)) },
	{ title: 'Flows', width: '5rem', end: true, cell: (row) => count(row.flows) },
	...ended ? [
		{ title: 'Ended', width: '5rem', end: true, cell: (row) => count(row.ended) },
		{ title: 'Refused', width: '5rem', wide: true, end: true, cell: (row) => count(row.refused) },
		{ title: 'Last seen', width: '11rem', wide: true, cell: (row) => when(row.last_seen) },
	] : [],
	{ title: 'To targets', width: '7rem', wide: true, end: true, cell: (row) => bytes(row.bytes_to_target) },
	{ title: 'To clients', width: '7rem', small: '6rem', end: true, cell: (row) => bytes(row.bytes_to_client) },
];

const select = (options, value) => {
	const made = h('select', { id: id('s') }, options.map(([word, text]) => h('option', { value: word }, text)));
	made.value = value;
	return made;
};

export default async function flows({ content, scope, query }) {
	const inputs = FILTERS.map(([name, text]) => [name, text, h('input', { type: 'search', id: id('q'), value: query.get(name) || '', autocomplete: 'off', spellcheck: 'false' })]);
	const sort = select(SORTS, query.get('sort') ?? 'bytes'), group = select(GROUPS, query.get('group') ?? '');
	const ended = h('input', { type: 'checkbox', id: id('ended'), checked: query.get('include') === 'ended' });
	const live = h('input', { type: 'checkbox', id: id('live'), checked: true }), told = h('span', { class: 'hint', role: 'status' });
	const place = h('div');
	let table = null;
	/* Of flows that have ended no targets are kept. */
	const withEnded = () => ended.checked && group.value && group.value !== 'target' && !inputs.some(([name, , input]) => name === 'target' && input.value.trim());

	const path = (after) => {
		const words = new URLSearchParams();
		for (const [name, , input] of inputs)
			if (input.value.trim())
				words.set(name, input.value.trim());
		if (group.value)
			words.set('group', group.value);
		else if (sort.value)
			words.set('sort', sort.value);
		if (withEnded())
			words.set('include', 'ended');
		words.set('limit', after || group.value ? PAGE : FIRST);
		if (after)
			words.set('after', after);
		return `flows?${words}`;
	};
	const page = async (after) => {
		const answer = await get(path(after));
		const filtered = inputs.some(([, , input]) => input.value.trim());
		fill(told, `${answer.active} flow${answer.active === 1 ? '' : 's'} now`, filtered && !group.value && answer.total !== null ? `, ${answer.total} of them as asked for` : '',
			answer.complete ? '' : '; there are more than can be sorted, so some are left out');
		return { ...answer, total: answer.total ?? (filtered ? undefined : answer.active) };
	};
	const build = () => {
		table?.end();
		sort.disabled = Boolean(group.value); /* groups come by bytes */
		table = new Table({ label: 'Flows', empty: 'No flows.', key: (row) => row.id ?? String(row.group), page, columns: group.value ? groupColumns(withEnded()) : flowColumns(() => table.load()) });
		fill(place, table.element);
		return table.load();
	};
	let timer;
	for (const [, , input] of inputs)
		input.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(() => table.load(), 300); });
	sort.addEventListener('change', build);
	group.addEventListener('change', build);
	ended.addEventListener('change', build);
	fill(content, head('Flows', 'What goes through right now.'),
		h('div', { class: 'row tools' }, inputs.map(([, text, input]) => h('span', { class: 'pair' }, h('label', { htmlFor: input.id }, text), input)),
			h('span', { class: 'pair' }, h('label', { htmlFor: sort.id }, 'Order'), sort), h('span', { class: 'pair' }, h('label', { htmlFor: group.id }, 'Show'), group, h('label', { class: 'check', htmlFor: ended.id }, ended, ' with those that have ended')),
			h('span', { class: 'pair' }, h('label', { class: 'check', htmlFor: live.id }, live, ' live'), button('Read again', () => table.load(), 'small'), told)), place);
	scope.onEnd(() => table?.end());
	await build();
	/* Further down nothing moves while somebody reads, nor in the unsorted list: it is read again only when asked. */
	scope.every(LIVE_MS, async () => {
		if (live.checked && (sort.value || group.value) && table.atTop() && !document.querySelector('dialog[open]'))
			await table.load();
	});
}
