/* What happens, as it happens. */
import { button, fill, h, id } from '../dom.js';
import { clock, compact, words } from '../format.js';
import { followFlows, kept } from '../live.js';
import { head } from '../page.js';
import { Table } from '../table.js';

const said = (event) => Object.entries(event.data).map(([key, value]) => `${words(key)}: ${compact(value)}`).join(' · ');

export default function events({ content, scope }) {
	const filter = h('input', { type: 'search', id: id('q'), autocomplete: 'off' });
	const hold = h('input', { type: 'checkbox', id: id('hold') }), flows = h('input', { type: 'checkbox', id: id('flows') });
	let unfollow = () => {};
	const table = new Table({
		label: 'Events', empty: 'Nothing has happened since this page was opened.', key: (event) => String(event.number),
		columns: [
			{ title: 'Time', width: '6rem', small: '4.6rem', cell: (event) => h('time', { datetime: event.at.toISOString(), title: event.at.toLocaleString() }, clock(event.at)) },
			{ title: 'What', width: '8rem', small: '5.5rem', cell: (event) => words(event.type) },
			{ title: 'Details', width: 'minmax(8rem, 5fr)', cell: (event) => h('span', { title: said(event) }, said(event)) },
		],
	});
	const draw = () => {
		const text = filter.value.trim().toLowerCase();
		table.set([...kept].reverse().filter((event) => !text || `${event.type} ${said(event)}`.toLowerCase().includes(text)));
	};
	filter.addEventListener('input', draw);
	flows.addEventListener('change', () => {
		unfollow();
		unfollow = flows.checked ? followFlows() : () => {};
	});
	fill(content, head('Events', 'Changes, drift, health, the relay and bans, newest first. The list begins when you log in.'),
		h('div', { class: 'row tools' }, h('label', { htmlFor: filter.id }, 'Contains'), filter,
			h('label', { class: 'check', htmlFor: flows.id }, flows, ' single flows'), h('label', { class: 'check', htmlFor: hold.id }, hold, ' hold'), button('Forget these', () => { kept.length = 0; draw(); }, 'small')), table.element);
	scope.onEnd(() => { unfollow(); table.end(); });
	scope.on(null, () => { if (!hold.checked) draw(); });
	draw();
}
