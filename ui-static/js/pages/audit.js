/* Who asked for what that changes something, and what came of it. */
import { get, may } from '../api.js';
import { badge, fill, h } from '../dom.js';
import { when } from '../format.js';
import { head } from '../page.js';
import { Table } from '../table.js';

const PAGE = 500;

export default async function audit({ content, scope }) {
	if (!may('admin')) {
		fill(content, head('Audit', ''), h('p', { class: 'note warn' }, 'Only an administrator may read the audit log.'));
		return;
	}
	const table = new Table({
		label: 'Audit log', empty: 'Nothing yet.', key: (row) => String(row.id),
		columns: [
			{ title: 'When', width: '15rem', wide: true, cell: (row) => when(row.at) },
			{ title: 'Who', width: 'minmax(5rem, 1fr)', small: 'minmax(4rem, 1fr)', cell: (row) => h('bdi', {}, row.actor) },
			{ title: 'What', width: 'minmax(9rem, 3fr)', cell: (row) => h('bdi', { title: `${row.method} ${row.path}` }, `${row.method} ${row.path.replace('/api/v1/', '')}`) },
			{ title: 'Answer', width: '5rem', small: '4.4rem', cell: (row) => badge(String(row.status), row.status < 300 ? 'good' : row.status < 500 ? 'warn' : 'bad') },
			{ title: 'Revision', width: '5.5rem', wide: true, cell: (row) => (row.revision ? h('a', { href: `#/revisions/${row.revision}` }, String(row.revision)) : '') },
			{ title: 'Why not', width: 'minmax(5rem, 1fr)', wide: true, cell: (row) => h('bdi', { title: row.detail }, row.detail) },
		],
		page: (before) => get(`audit?limit=${PAGE}${before ? `&before=${before}` : ''}`),
	});
	fill(content, head('Audit', 'Every request that changes something, also the refused ones, newest first.'), table.element);
	scope.onEnd(() => table.end());
	scope.on(['revision'], () => table.load());
	await table.load();
}
