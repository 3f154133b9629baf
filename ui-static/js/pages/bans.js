/* Who is shut out, by whom or by which limit, until when. */
import { getIfThere, may, Problem, request, segment } from '../api.js';
import { button, fill, h, id, toast } from '../dom.js';
import { when } from '../format.js';
import { ask } from '../dialog.js';
import { head, into, notThere } from '../page.js';
import { Table } from '../table.js';

const addressOf = (ban) => ban.address ?? ban.source ?? ban.prefix;
const untilOf = (ban) => ban.expires_at ?? ban.until ?? ban.expires;
const whereOf = (ban) => (ban.placement === 'xdp' ? `prefilter ${(ban.interfaces || []).join(', ') || '(none in force)'}` : 'listeners');
const byOf = (ban) => (ban.actor === 'prefilter' && ban.prefilter ? `prefilter ${ban.prefilter}` : ban.rate_limit ? `limit ${ban.rate_limit}` : ban.actor ?? ban.by ?? '');

function maker(reload) {
	const address = h('input', { type: 'text', id: id('a'), autocomplete: 'off', spellcheck: 'false' }), reason = h('input', { type: 'text', id: id('r') });
	const seconds = h('input', { type: 'text', inputmode: 'numeric', id: id('s'), value: '3600', class: 'short' }), error = h('p', { class: 'error', role: 'alert' });
	const form = h('form', { class: 'panel', novalidate: true }, h('h2', {}, 'Ban somebody'), h('div', { class: 'row tools' },
		[['Address', address], ['Seconds', seconds], ['Why', reason]].map(([text, input]) => h('span', { class: 'pair' }, h('label', { htmlFor: input.id }, text), input)),
		h('button', { type: 'submit', class: 'danger' }, 'Ban')), error);
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		fill(error);
		const body = { address: address.value.trim(), ban_s: Number(seconds.value) || seconds.value };
		if (reason.value.trim())
			body.reason = reason.value.trim();
		try {
			await request('POST', 'bans', { body });
			address.value = '';
			await reload();
		} catch (problem) {
			fill(error, [problem.message, ...(problem.errors || []).map((one) => `${one.pointer} ${one.detail}`)].join(' '));
		}
	});
	return form;
}

async function lift(ban, reload) {
	if (!await ask('Lift the ban?', `${addressOf(ban)} may come again at once.`, 'Lift it'))
		return;
	try {
		await request('DELETE', `bans?address=${segment(addressOf(ban))}`);
	} catch (error) {
		toast(error instanceof Problem ? error.message : 'The gateway did not answer.', 'bad');
	}
	await reload();
}

export default async function bans({ content, scope }) {
	const place = h('div'), state = { table: null };
	const load = () => state.table?.load();
	const page = async (after) => {
		const told = await getIfThere(`bans?limit=1000${after ? `&after=${segment(after)}` : ''}`);
		return { items: told.items ?? told, next: told.next ?? null, total: told.total };
	};
	fill(content, head('Bans', 'Sources that are shut out, by hand, by a rate limit, or by a prefilter itself.'), place);
	await into(place, async () => {
		if (!await getIfThere('bans'))
			return notThere('GET /api/v1/bans');
		const table = state.table = new Table({
			label: 'Bans', empty: 'Nobody is banned.', key: addressOf, page,
			columns: [
				{ title: 'Address', width: 'minmax(9rem, 2fr)', cell: addressOf },
				{ title: 'Why', width: 'minmax(6rem, 2fr)', wide: true, cell: (ban) => ban.reason ?? '' },
				{ title: 'By', width: 'minmax(5rem, 1fr)', cell: byOf },
				{ title: 'Where', width: 'minmax(6rem, 1fr)', wide: true, cell: whereOf },
				{ title: 'Until', width: '12rem', wide: true, cell: (ban) => when(untilOf(ban)) || 'lifted by hand' },
				...may('operator') ? [{ title: 'Do', width: '5rem', cell: (ban) => button('Lift', () => lift(ban, load), 'small', { 'aria-label': `Lift the ban of ${addressOf(ban)}` }) }] : [],
			],
		});
		scope.onEnd(() => table.end());
		scope.on(['ban'], load);
		scope.every(5000, load);
		return [may('operator') ? maker(load) : null, table.element];
	});
}
