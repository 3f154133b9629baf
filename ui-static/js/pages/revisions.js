/* The history: who changed what, what is different now, and the way back. */
import { get, may, Problem } from '../api.js';
import { badge, button, fill, h, id, toast } from '../dom.js';
import { when } from '../format.js';
import { changes } from '../diff.js';
import { head, into } from '../page.js';
import { save } from '../save.js';
import { Table } from '../table.js';

const PAGE = 200;

async function rollback(revision) {
	try {
		if (await save(`Back to revision ${revision}`, { method: 'POST', path: `revisions/${revision}/rollback` }))
			location.hash = '#/revisions';
	} catch (error) {
		toast(error instanceof Problem ? [error.message, ...error.errors.map((one) => one.detail)].join(' ') : error.message, 'bad');
	}
}

async function list({ content, scope }) {
	const now = { revision: null, pending: null };
	const table = new Table({
		label: 'Revisions', key: (row) => String(row.revision),
		columns: [
			{ title: 'Revision', width: '7rem', small: '4.5rem', cell: (row) => [h('a', { href: `#/revisions/${row.revision}` }, String(row.revision)), row.revision === now.revision ? badge('now', 'good') : null, row.revision === now.pending?.revision ? badge('waits', 'warn') : null] },
			{ title: 'What', width: 'minmax(8rem, 3fr)', cell: (row) => row.summary },
			{ title: 'Who', width: 'minmax(6rem, 1fr)', wide: true, cell: (row) => row.actor },
			{ title: 'When', width: '12rem', wide: true, cell: (row) => when(row.created_at) },
			...may('admin') ? [{ title: 'Do', width: '8rem', small: '6rem', cell: (row) => (row.revision === now.revision ? '' : button('Go back', () => rollback(row.revision), 'small', { 'aria-label': `Go back to revision ${row.revision}` })) }] : [],
		],
		page: async (before) => {
			const page = await get(`revisions?limit=${PAGE}${before ? `&before=${before}` : ''}`);
			if (!before)
				Object.assign(now, { revision: page.items[0]?.revision, pending: page.pending });
			return page;
		},
	});
	fill(content, head('Revisions', 'Every change is a revision. Going back is a new one, so nothing is lost by it.'), table.element);
	scope.onEnd(() => table.end());
	scope.on(['revision', 'pending'], () => table.load());
	await table.load();
}

async function one(revision) {
	const [detail, newest] = await Promise.all([get(`revisions/${revision}`), get('revisions?limit=1')]);
	const to = h('input', { type: 'text', inputmode: 'numeric', id: id('to'), value: String(newest.items[0].revision), class: 'short' });
	const place = h('div'), current = Number(revision) === newest.items[0].revision;
	const compare = () => into(place, async () => changes((await get(`revisions/${revision}/diff?to=${encodeURIComponent(to.value.trim())}`)).diff));
	return [
		head(`Revision ${revision}`, `${detail.summary} · ${detail.actor} · ${when(detail.created_at)}`,
			may('admin') && !current ? button('Go back to this', () => rollback(revision), 'primary') : null, h('a', { class: 'button', href: '#/revisions' }, 'All revisions')),
		h('section', { class: 'panel' }, h('h2', {}, 'What it changed'), changes(detail.changes)),
		h('section', { class: 'panel' }, h('h2', {}, 'From this revision to another'),
			h('div', { class: 'row tools' }, h('label', { htmlFor: to.id }, 'to revision'), to, button('Compare', compare)), place),
	];
}

export default async function revisions({ content, scope, segments }) {
	if (segments[1])
		await into(content, () => one(segments[1]));
	else
		await list({ content, scope });
}
