/* Address sets: a list, and a page each where lines are pasted - a handful or a million. */
import { get, may, Problem, request, segment } from '../api.js';
import { button, fill, h, id, toast } from '../dom.js';
import { dialog } from '../dialog.js';
import { count } from '../format.js';
import { head, into } from '../page.js';
import { save } from '../save.js';
import { Table } from '../table.js';

const PAGE = 500;
const NAME = /^[a-z0-9-]{1,63}$/;

const entriesOf = (row) => row.entries_count ?? row.entries?.length ?? 0;
const linesOf = (text) => text.split('\n').filter((line) => line.trim() && !line.trim().startsWith('#')).length;

async function list({ content, scope }) {
	const table = new Table({
		label: 'Address sets', empty: 'No address sets yet.', key: (row) => row.name,
		columns: [
			{ title: 'Name', width: 'minmax(8rem, 2fr)', cell: (row) => h('a', { href: `#/address-sets/${segment(row.name)}` }, row.name) },
			{ title: 'Entries', width: '7rem', small: '5rem', end: true, cell: (row) => count(entriesOf(row)) },
			{ title: 'Comment', width: 'minmax(8rem, 3fr)', wide: true, cell: (row) => row.comment },
		],
		page: (after) => get(`address-sets?limit=${PAGE}${after ? `&after=${segment(after)}` : ''}`),
	});
	fill(content, head('Address sets', 'Prefixes under a name; listeners and prefilters write @name.',
		may('admin') ? h('a', { class: 'button primary', href: '#/address-sets?new=1' }, 'New address set') : null), table.element);
	scope.onEnd(() => table.end());
	scope.on(['revision'], () => table.load());
	await table.load();
}

async function make(content) {
	const name = h('input', { type: 'text', id: id('n'), autocomplete: 'off', spellcheck: 'false', 'aria-describedby': 'set-error' });
	const comment = h('input', { type: 'text', id: id('c'), maxlength: '255' }), error = h('p', { class: 'error', role: 'alert', id: 'set-error' });
	const form = h('form', { novalidate: true }, h('div', { class: 'fields' },
		h('div', { class: 'field' }, h('label', { htmlFor: name.id }, 'name'), name, h('p', { class: 'hint' }, '1 to 63 of a-z 0-9 -')),
		h('div', { class: 'field' }, h('label', { htmlFor: comment.id }, 'comment'), comment)), error,
	h('div', { class: 'row' }, h('button', { type: 'submit', class: 'primary' }, 'Review and apply'), h('a', { class: 'button', href: '#/address-sets' }, 'Back')));
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		fill(error);
		try {
			if (await save('New address set', { method: 'POST', path: 'address-sets', body: { name: name.value.trim(), comment: comment.value } }))
				location.hash = `#/address-sets/${segment(name.value.trim())}`;
		} catch (problem) {
			fill(error, problem.errors?.map((one) => `${one.pointer} ${one.detail}`).join(' ') || problem.message);
			(NAME.test(name.value) ? comment : name).focus();
		}
	});
	fill(content, head('New address set', 'Entries come on the next page.'), form);
}

/* The faults of lines, at most so many. */
function faults(problem) {
	const errors = problem.errors || [];
	return [h('span', {}, problem.message), errors.length ? h('ul', {}, errors.slice(0, 20).map((one) => h('li', {}, `${one.pointer} ${one.detail}`)), errors.length > 20 ? h('li', {}, `… and ${errors.length - 20} more`) : null) : null];
}

const WAYS = [['POST', 'Add these', 'primary'], ['PUT', 'Replace all by these', ''], ['DELETE', 'Remove these', 'danger']];

function paste(name, reload) {
	const area = h('textarea', { id: id('p'), rows: 8, spellcheck: 'false', autocomplete: 'off', 'aria-describedby': 'paste-hint paste-error' });
	const error = h('div', { class: 'error', role: 'alert', id: 'paste-error' }), lines = h('span', { class: 'hint' });
	const file = h('input', { type: 'file', id: id('file'), accept: '.txt,.list,.netset,text/plain' });
	area.addEventListener('input', () => fill(lines, `${count(linesOf(area.value))} lines`));
	file.addEventListener('change', async () => {
		if (file.files[0])
			area.value = await file.files[0].text();
		area.dispatchEvent(new Event('input'));
	});
	const write = async (method, text) => {
		fill(error);
		try {
			const answer = await save(`${text.replace(' these', '')}: entries of ${name}`, { method, path: `address-sets/${segment(name)}/entries`, text: area.value });
			if (!answer)
				return;
			toast(`${answer.data.added} added, ${answer.data.removed} removed, ${answer.data.entries} now.`, 'good');
			area.value = '';
			fill(lines);
			await reload();
		} catch (problem) {
			fill(error, problem instanceof Problem ? faults(problem) : problem.message);
		}
	};
	return h('section', { class: 'panel' }, h('h2', {}, 'Paste lines'), h('div', { class: 'field' }, h('label', { htmlFor: area.id }, 'One address, prefix or range a line'), area,
		h('p', { class: 'hint', id: 'paste-hint' }, 'A # begins a comment. ', lines), error),
	h('div', { class: 'row' }, WAYS.map(([method, text, kind]) => button(text, () => write(method, text), kind)), h('span', { class: 'spring' }), h('label', { htmlFor: file.id }, 'or from a file'), file));
}

async function one({ content, scope, name }) {
	const path = `address-sets/${segment(name)}`;
	const filter = h('input', { type: 'search', id: id('q'), autocomplete: 'off', spellcheck: 'false' }), total = h('span', { class: 'hint', role: 'status' });
	const table = new Table({ label: `Entries of ${name}`, empty: 'No entries.', key: (row) => row, height: '22rem', columns: [{ title: 'Entry', cell: (row) => row }] });
	let all = [];
	const draw = () => {
		const shown = filter.value ? all.filter((line) => line.includes(filter.value.trim())) : all;
		table.set(shown);
		fill(total, `${count(shown.length)} of ${count(all.length)}`);
	};
	const read = async () => {
		const { data } = await request('GET', `${path}/entries`, { headers: { Accept: 'text/plain' }, timeout: 60000 });
		all = data.split('\n').filter(Boolean);
		draw();
	};
	const remove = async () => {
		try {
			if (await save(`Delete address set ${name}`, { method: 'DELETE', path }))
				location.hash = '#/address-sets';
		} catch (problem) {
			await dialog({ title: 'It cannot be deleted', content: [h('p', {}, problem.message), h('ul', {}, (problem.errors || []).map((e) => h('li', {}, e.detail)))], buttons: [{ text: 'Close', value: true }] });
		}
	};
	filter.addEventListener('input', draw);
	fill(content, head(name, 'Address set', may('admin') ? button('Delete', remove, 'danger') : null, h('a', { class: 'button', href: '#/address-sets' }, 'Back')),
		may('admin') ? paste(name, read) : null,
		h('section', { class: 'panel' }, h('h2', {}, 'Entries'), h('div', { class: 'row tools' }, h('label', { htmlFor: filter.id }, 'Contains'), filter, total), table.element));
	scope.onEnd(() => table.end());
	scope.on(['revision'], () => { read().catch(() => {}); });
	await read();
}

export default async function sets({ content, scope, segments, query }) {
	if (segments[1])
		await into(content, async () => { const place = h('div'); await one({ content: place, scope, name: segments[1] }); return place; });
	else if (query.get('new'))
		await make(content);
	else
		await list({ content, scope });
}
