/*
 * Every change of the configuration goes through here: first a dry run, whose
 * faults the caller shows where they are; then the difference, as fields, JSON
 * and nft text; then, if wanted, a time after which the gateway takes the
 * change back by itself unless somebody keeps it.
 */
import { get, may, Problem, request, session } from './api.js';
import { button, fill, h, id, toast } from './dom.js';
import { changes, textBox } from './diff.js';
import { ask, dialog } from './dialog.js';
import { on } from './live.js';
import { duration } from './format.js';

const CHOICES = [30, 60, 120, 300, 900];
const STORE = 'gatewayd.confirm';
const SETTLED_MS = 1500;

const joined = (path, query) => `${path}${path.includes('?') ? '&' : '?'}${query}`;

function confirmChoice() {
	const stored = localStorage.getItem(STORE) ?? '60';
	const select = h('select', { id: id('c') }, h('option', { value: '0' }, 'For good, at once'),
		CHOICES.map((s) => h('option', { value: String(s) }, `Take it back after ${duration(s)} unless I keep it`)));
	select.value = [...select.options].some((o) => o.value === stored) ? stored : '60';
	select.addEventListener('change', () => localStorage.setItem(STORE, select.value));
	return select;
}

function preview(rehearsal, select) {
	const warnings = rehearsal.warnings || [];
	return [
		warnings.length ? h('div', { class: 'note warn' }, h('strong', {}, 'Accepted, but:'),
			h('ul', {}, warnings.map((w) => h('li', {}, `${w.pointer || ''} ${w.detail}`)))) : null,
		changes(rehearsal.diff),
		rehearsal.nft ? h('details', {}, h('summary', {}, 'As nft text, what goes to the kernel'), textBox(rehearsal.nft, 'nft text'))
			: h('p', { class: 'hint' }, 'The kernel’s rules stay as they are.'),
		h('p', { class: 'field' }, h('label', { htmlFor: select.id }, 'When it is applied'), select),
	];
}

/*
 * Rehearses, shows, applies. write: {method, path, body or text, headers}. Null if nothing was applied, else the answer
 * of request(). Problems of the rehearsal are thrown; those of the write itself are shown in the dialog.
 */
export async function save(title, write) {
	const { data } = await request(write.method, joined(write.path, 'dry_run=true'), { ...write, timeout: 60000 });

	if (data && data.dry_run && !data.changed) {
		toast('There is nothing to change.');
		return null;
	}
	const select = confirmChoice(), error = h('p', { class: 'error', role: 'alert' });
	return dialog({
		title, wide: true, content: [preview(data || {}, select), error],
		buttons: [{ text: 'Cancel', value: null }, {
			text: 'Apply', kind: 'primary', onclick: async (close) => {
				try {
					const path = select.value === '0' ? write.path : joined(write.path, `confirm_within=${select.value}`);
					const answer = await request(write.method, path, { ...write, timeout: 60000 });
					await pending.look();
					if (select.value === '0')
						toast('Applied.', 'good');
					close(answer);
				} catch (problem) {
					fill(error, problem.message);
				}
			},
		}],
	});
}

/* The change that waits to be kept: a bar on every page, which is there again after a reload. */
class Pending {
	constructor() {
		this.now = null;
		this.words = h('span');
		this.bar = h('div', { class: 'bar warn', hidden: true, id: 'pending' }, this.words, h('span', { class: 'spring' }),
			this.keepButton = button('Keep it', () => this.settle('confirm'), 'primary'),
			this.backButton = button('Take it back now', () => this.settle('rollback')));
	}

	start() {
		document.getElementById('bars').append(this.bar);
		on(['revision', 'reconnected'], () => this.look());
		on(['pending'], ({ data }) => data.revision ? this.take(data) : this.look());
		setInterval(() => this.draw(), 250);
		return this.look();
	}

	async look() {
		if (session.role)
			try {
				this.take((await get('status')).pending);
			} catch { /* the bar of the lost connection tells */ }
	}

	take(document) {
		this.now = document && { ...document, end: performance.now() + document.seconds_left * 1000 };
		this.draw();
	}

	draw() {
		this.bar.hidden = !this.now;
		if (!this.now)
			return;
		const left = Math.max(0, Math.ceil((this.now.end - performance.now()) / 1000));
		const text = left ? `Change ${this.now.revision} is taken back in ${left} s unless it is kept.` : `Change ${this.now.revision} is being taken back …`;
		if (this.words.textContent !== text)
			this.words.textContent = text;
		this.keepButton.hidden = this.backButton.hidden = !may('admin') || !left;
		if (!left && performance.now() - Math.max(this.now.end, this.asked || 0) > SETTLED_MS) {
			this.asked = performance.now();
			this.look();
		}
	}

	async settle(how) {
		const { revision, base } = this.now;
		try {
			if (how === 'rollback' && !await ask('Take the change back?', `The configuration becomes that of revision ${base} again.`, 'Take it back'))
				return;
			await request('POST', how === 'confirm' ? `revisions/${revision}/confirm` : `revisions/${base}/rollback`);
			toast(how === 'confirm' ? `Change ${revision} is kept.` : 'Taken back.', 'good');
		} catch (error) {
			toast(error instanceof Problem ? error.message : 'The gateway did not answer.', 'bad');
		}
		await this.look();
	}
}

export const pending = new Pending();
