/*
 * A list that stays fast at any length: only the rows in sight are elements.
 * Rows come in pages, asked for when they are scrolled to; the height is that
 * of the whole list from the start. For screen readers it is a table with its
 * true number of rows.
 */
import { button, fill, h } from './dom.js';

const ROW = 40;
const CUT = 10; /* characters for which there is room in every column */
const SPARE = 6; /* rows above and below the visible ones */

export class Table {
	/*
	 * columns: [{title, width (grid track), cell(row) -> child, wide (hidden on small screens), end (right-aligned)}]
	 * page(after) -> {items, next, total}: one page of rows; next null: the last; total: of all pages, if it is known.
	 * key(row): what tells rows apart.
	 */
	constructor({ columns, page, key, label, empty, height }) {
		Object.assign(this, { columns, page, key, label, empty });
		this.rows = [];
		this.next = null;
		this.total = 0;
		this.shown = new Map(); /* row elements by index */
		this.generation = 0;
		this.body = h('div', { class: 'vt-body', role: 'rowgroup' });
		this.head = h('div', { class: 'vt-row vt-head', role: 'row', 'aria-rowindex': 1 },
			columns.map((c) => h('div', { role: 'columnheader', class: this.classOf(c) }, c.title)));
		this.view = h('div', { class: 'vt-view', role: 'table', 'aria-label': label, tabIndex: 0 },
			h('div', { class: 'vt-top', role: 'rowgroup' }, this.head), this.body);
		this.note = h('p', { class: 'vt-note', role: 'status' });
		this.element = h('div', { class: 'vt' }, this.view, this.note);
		this.view.style.setProperty('--cols', columns.map((c) => c.width || '1fr').join(' '));
		this.view.style.setProperty('--cols-small', columns.filter((c) => !c.wide).map((c) => c.small || c.width || '1fr').join(' '));
		if (height)
			this.view.style.setProperty('--height', height);
		this.view.addEventListener('scroll', () => this.soon(), { passive: true });
		/* A row is not made anew under somebody's finger: a click would go nowhere. */
		this.view.addEventListener('pointerdown', () => { this.held = true; });
		this.release = () => { if (this.held) setTimeout(() => { this.held = false; this.draw(this.late); }); };
		for (const kind of ['pointerup', 'pointercancel'])
			window.addEventListener(kind, this.release);
		this.resized = new ResizeObserver(() => this.soon());
		this.resized.observe(this.view);
	}

	classOf(column) {
		return `vt-cell${column.wide ? ' wide' : ''}${column.end ? ' end' : ''}`;
	}

	/* Takes rows that are all there are. */
	set(rows, total = rows.length) {
		this.generation++;
		this.rows = rows;
		this.next = null;
		this.total = total;
		this.draw(true);
	}

	/* Reads from the server, from the beginning; what is on the screen stays until the answer is there. */
	async load() {
		const generation = ++this.generation;
		try {
			const first = await this.page(null);
			if (generation !== this.generation)
				return;
			this.rows = [];
			this.take(first);
			this.ahead = first.items.length;
			this.draw(true);
		} catch (error) {
			if (generation === this.generation)
				this.fail(error);
		}
	}

	/* One more page. The last one says how many there are, whatever was said before; without a total there is more to come. */
	take(page) {
		this.rows = this.rows.concat(page.items);
		this.next = page.next;
		if (page.next === null)
			this.total = this.rows.length;
		else
			this.total = Math.max(page.total ?? this.rows.length + page.items.length, this.rows.length + 1);
	}

	/* Whether everything in sight is of the first page: to read that again moves nothing from under anybody's eyes. */
	atTop() {
		return this.view.scrollTop + this.view.clientHeight <= (this.ahead ?? 0) * ROW || this.next === null && this.rows.length === this.ahead;
	}

	fail(error) {
		fill(this.note, error.message, ' ', button('Try again', () => this.load(), 'small'));
	}

	/* Reads on until the row is there. */
	async more(wanted) {
		if (this.loading || this.next === null)
			return;
		const generation = this.generation;
		this.loading = true;
		try {
			while (this.next !== null && this.rows.length <= wanted && generation === this.generation) {
				const page = await this.page(this.next);
				if (generation !== this.generation)
					break;
				this.take(page);
			}
		} catch (error) {
			this.fail(error);
		} finally {
			this.loading = false;
		}
		if (generation === this.generation)
			this.draw(true);
	}

	soon() {
		if (this.pending)
			return;
		this.pending = requestAnimationFrame(() => {
			this.pending = 0;
			this.draw(false);
		});
	}

	/* Focus is kept on the same control of the same row when rows are made anew. */
	focused() {
		const active = document.activeElement;
		const row = active && this.body.contains(active) ? active.closest('.vt-row') : null;
		return row && { key: row.dataset.key, n: [...row.querySelectorAll('a,button')].indexOf(active) };
	}

	refocus(was) {
		if (!was || was.n < 0)
			return;
		const row = [...this.body.children].find((one) => one.dataset.key === was.key);
		row?.querySelectorAll('a,button')[was.n]?.focus({ preventScroll: true });
	}

	draw(anew) {
		const top = this.view.scrollTop, height = this.view.clientHeight || 400;
		const first = Math.max(0, Math.floor(top / ROW) - SPARE);
		const last = Math.min(this.total, Math.ceil((top + height) / ROW) + SPARE);

		if (this.held) {
			this.late = this.late || anew;
			return;
		}
		if (!anew && first === this.first && last === this.last)
			return;
		this.late = false;
		this.first = first;
		this.last = last;
		const was = this.focused();
		this.body.style.height = `${this.total * ROW}px`;
		this.view.setAttribute('aria-rowcount', this.total + 1);
		this.show(first, last, anew);
		this.refocus(was);
		fill(this.note, this.total ? '' : this.empty || 'Nothing here.');
		if (last > this.rows.length)
			this.more(last);
	}

	/* The elements of these rows, and no others. Those that are there and right are left alone: to make them is what takes
	 * time when somebody scrolls. */
	show(first, last, anew) {
		for (const [index, element] of this.shown)
			if (anew || index < first || index >= last || element.classList.contains('vt-wait')) {
				element.remove();
				this.shown.delete(index);
			}
		let behind = null;
		for (let i = last - 1; i >= first; i--) {
			let element = this.shown.get(i);
			if (!element) {
				element = this.row(i);
				this.body.insertBefore(element, behind);
				this.shown.set(i, element);
			}
			behind = element;
		}
	}

	row(index) {
		const row = this.rows[index];
		const element = h('div', { class: `vt-row${row ? '' : ' vt-wait'}`, role: 'row', 'aria-rowindex': index + 2 },
			this.columns.map((c, n) => h('div', { role: 'cell', class: this.classOf(c) },
				row ? c.cell(row) : n ? '' : 'reading …')));
		element.style.top = `${index * ROW}px`;
		if (row) {
			element.dataset.key = this.key(row);
			/* What is cut off for want of room can be had all the same. */
			for (const cell of element.children)
				if (cell.textContent.length > CUT && !cell.querySelector('[title]'))
					cell.title = cell.textContent;
		}
		return element;
	}

	end() {
		this.generation++;
		this.resized.disconnect();
		for (const kind of ['pointerup', 'pointercancel'])
			window.removeEventListener(kind, this.release);
	}
}
