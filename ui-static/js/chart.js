/*
 * Lines over time, as SVG: axes with round numbers, a legend, the values at
 * the pointer or at the place the arrow keys have reached, and the same in
 * words for those who do not see it. Colours are those of the style sheet.
 */
import { fill, h, svg } from './dom.js';
import { clock } from './format.js';

const LEFT = 76, RIGHT = 8, TOP = 8, BOTTOM = 20, HEIGHT = 150;
const ROOM = 90; /* for a time of day below the line */

/* The round number at or above the value: 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
	if (!(value > 0))
		return 1;
	const power = 10 ** Math.floor(Math.log10(value));
	return power * ([1, 2, 5, 10].find((n) => n * power >= value * 0.999999) || 10);
}

/* The line breaks where rows or values are missing; one that stands alone is a dot. */
function pathOf(points, x, y, gap) {
	let path = '', before = null;
	for (const [time, value] of points) {
		const goesOn = before !== null && time - before <= gap;
		path += `${goesOn ? 'L' : 'M'}${x(time).toFixed(1)} ${y(value).toFixed(1)}${goesOn ? '' : 'h.01'}`;
		before = time;
	}
	return path;
}

export class Chart {
	/* series: [{name, cls}]; format(value) -> text; span: seconds that are shown. */
	constructor({ title, series, format, span = 3600 }) {
		Object.assign(this, { title, series, format, span, rows: [], step: 10 });
		this.summary = h('p', { class: 'unseen' });
		this.readout = h('p', { class: 'readout' });
		this.plot = h('div', { class: 'plot', tabIndex: 0, role: 'img', 'aria-label': title });
		this.element = h('figure', { class: 'chart' },
			h('figcaption', {}, h('strong', {}, title), h('span', { class: 'legend' },
				series.map((one) => h('span', { class: `key ${one.cls}` }, one.name)))),
			this.plot, this.readout, this.summary);
		this.plot.addEventListener('pointermove', (event) => this.point(event));
		this.plot.addEventListener('pointerleave', () => this.mark(null));
		this.plot.addEventListener('blur', () => this.mark(null));
		this.plot.addEventListener('keydown', (event) => this.key(event));
		this.resized = new ResizeObserver(() => this.draw());
		this.resized.observe(this.plot);
	}

	/* rows: [time in s, value of each series or null...], oldest first. */
	set(rows, step) {
		this.rows = rows;
		this.step = step;
		this.draw();
	}

	scale() {
		const width = Math.max(this.plot.clientWidth, 160);
		const end = this.rows.length ? Math.max(this.rows.at(-1)[0], Date.now() / 1000) : Date.now() / 1000;
		const top = roundUp(Math.max(...this.rows.map((row) => Math.max(...row.slice(1))), 0));
		return {
			width, end, top,
			x: (time) => LEFT + (width - LEFT - RIGHT) * (1 - (end - time) / this.span),
			y: (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top),
		};
	}

	draw() {
		const scale = this.scaled = this.scale();
		const { width, top, x, y } = scale;
		const picture = svg('svg', { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, 'aria-hidden': 'true' });
		for (const part of [0, 0.5, 1])
			picture.append(svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(top * part), y2: y(top * part) }),
				svg('text', { class: 'axis', x: LEFT - 6, y: y(top * part) + 4, 'text-anchor': 'end' }, this.format(top * part)));
		const ticks = Math.max(1, Math.min(6, Math.floor((width - LEFT) / ROOM)));
		for (let i = 0; i <= ticks; i++) {
			const time = scale.end - this.span * (1 - i / ticks);
			picture.append(svg('text', { class: 'axis', x: x(time), y: HEIGHT - 4, 'text-anchor': i === ticks ? 'end' : i ? 'middle' : 'start' }, clock(new Date(time * 1000))));
		}
		this.series.forEach((one, n) => {
			const points = this.rows.filter((row) => scale.end - row[0] <= this.span).map((row) => [row[0], row[n + 1]]).filter((point) => point[1] !== null);
			picture.append(svg('path', { class: `line ${one.cls}`, d: pathOf(points, x, y, this.step * 2.5) }));
		});
		this.cursor = svg('line', { class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' });
		picture.append(this.cursor);
		fill(this.plot, picture);
		this.tell();
		this.mark(this.at ?? null);
	}

	word(value) { return value === null ? '–' : this.format(value); }

	tell() {
		const last = this.rows.at(-1);
		const text = last ? this.series.map((one, n) => `${one.name}: now ${this.word(last[n + 1])}, at most ${this.format(Math.max(...this.rows.map((row) => row[n + 1])))}`).join('; ')
			: 'no values yet';
		this.plot.setAttribute('aria-label', `${this.title} in the last hour. ${text}`);
	}

	mark(index) {
		this.at = index;
		const row = index === null ? this.rows.at(-1) : this.rows[index];
		if (index !== null && row) {
			this.cursor.setAttribute('x1', this.scaled.x(row[0]));
			this.cursor.setAttribute('x2', this.scaled.x(row[0]));
		}
		this.cursor.setAttribute('visibility', index !== null && row ? 'visible' : 'hidden');
		const text = row ? `${index === null ? 'now' : clock(new Date(row[0] * 1000))}: ${this.series.map((one, n) => `${one.name} ${this.word(row[n + 1])}`).join(', ')}` : 'no values yet';
		if (this.readout.textContent !== text)
			this.readout.textContent = text;
	}

	point(event) {
		const box = this.plot.getBoundingClientRect(), at = event.clientX - box.left;
		let best = null, distance = Infinity;
		this.rows.forEach((row, i) => {
			const away = Math.abs(this.scaled.x(row[0]) - at);
			if (away < distance)
				[best, distance] = [i, away];
		});
		this.mark(best);
	}

	key(event) {
		const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
		if (!by || !this.rows.length)
			return;
		event.preventDefault();
		this.mark(Math.min(this.rows.length - 1, Math.max(0, (this.at ?? this.rows.length) + by)));
	}

	end() { this.resized.disconnect(); }
}
