/*
 * The picture of the overview: clients, listeners, upstreams and targets as
 * columns of cards with lines between them, as wide as what flows. Cards are
 * ordinary links; the lines are drawn behind them from where the cards are. On
 * a small screen, where columns stand below each other, lines go around cards.
 */
import { badge, fill, h, svg } from './dom.js';
import { bits, several } from './format.js';

const CARDS_MAX = 8; /* of a column; the busiest */
const WIDE = 14;     /* pixels of the widest line */
const GUTTER = 12;   /* at both edges of the picture, where columns stand below each other: lines lead through it */
const COLUMNS = [['client', 'Clients'], ['listener', 'Listeners'], ['upstream', 'Upstreams'], ['target', 'Targets']];

/* Node ids are "kind name"; links are [from, to, bytes per second, alive]. */
export class Picture {
	constructor() {
		this.lines = svg('svg', { class: 'lines', 'aria-hidden': 'true' });
		this.columns = COLUMNS.map(([kind, title]) => {
			const list = h('ul', {});
			return { kind, list, element: h('section', { class: 'column', 'aria-label': title }, h('h3', {}, title), list) };
		});
		this.element = h('div', { class: 'picture' }, this.lines, this.columns.map((one) => one.element));
		this.resized = new ResizeObserver(() => this.connect());
		this.resized.observe(this.element);
		this.links = [];
	}

	card(node) {
		const inside = [h('span', { class: 'name' }, h('bdi', {}, node.name)),
			node.state ? badge(node.state, node.kind2) : null,
			h('span', { class: 'rate' }, node.note ?? `${bits(node.rate)} · ${several(node.flows ?? 0, 'flow')}`)];
		const made = h('li', { class: node.kind2 ? `is-${node.kind2}` : '' }, node.href ? h('a', { class: 'card', href: node.href }, inside) : h('div', { class: 'card' }, inside));
		made.dataset.node = node.id;
		return made;
	}

	/* nodes: {client: [...], listener: [...], ...}, each {id, name, href, rate, flows, state, kind2, note}. */
	set(nodes, links) {
		const signature = JSON.stringify([nodes, links]);
		if (signature === this.signature)
			return;
		this.signature = signature;
		const focused = this.element.contains(document.activeElement) ? document.activeElement.closest('li')?.dataset.node : null;
		this.cards = new Map();
		for (const { kind, list } of this.columns) {
			const all = nodes[kind] || [], shown = all.slice(0, CARDS_MAX);
			fill(list, shown.map((node) => this.card(node)),
				all.length > shown.length ? h('li', { class: 'others' }, `and ${all.length - shown.length} more`) : null,
				all.length ? null : h('li', { class: 'others' }, 'none'));
			for (const item of list.children)
				if (item.dataset.node)
					this.cards.set(item.dataset.node, item);
		}
		this.links = links;
		this.connect();
		if (focused)
			this.cards.get(focused)?.querySelector('a')?.focus({ preventScroll: true });
	}

	connect() {
		const box = this.element.getBoundingClientRect(), most = Math.max(...this.links.map(([, , rate]) => rate), 1);
		this.lines.setAttribute('width', box.width);
		this.lines.setAttribute('height', box.height);
		fill(this.lines, this.links.map(([from, to, rate, kind]) => {
			const a = this.cards?.get(from)?.getBoundingClientRect(), b = this.cards?.get(to)?.getBoundingClientRect();
			if (!a || !b)
				return null;
			const upper = this.cards.get(from).closest('.column').getBoundingClientRect(), lower = this.cards.get(to).closest('.column').getBoundingClientRect();
			const beside = lower.left >= upper.right, wide = beside ? WIDE : GUTTER / 3, gap = (upper.bottom + lower.top) / 2;
			return svg('path', { class: `link ${kind || ''}`, 'stroke-width': Math.max(1.5, wide * Math.sqrt(rate / most)).toFixed(1), d: beside ? curve(a, b, box) : detour(a, b, box, gap) });
		}));
	}

	end() { this.resized.disconnect(); }
}

/* From the right edge to the left one. */
function curve(a, b, box) {
	const x1 = a.right - box.left, y1 = (a.top + a.bottom) / 2 - box.top, x2 = b.left - box.left, y2 = (b.top + b.bottom) / 2 - box.top;
	const middle = (x1 + x2) / 2;
	return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}

/* Out to the edge of the picture and down beside the cards, two of which stand in a row at most; from one edge to the other
 * in the gap between the columns, at `gap`. */
function detour(a, b, box, gap) {
	const reach = (card) => ({ left: card.left - box.left < 2 * GUTTER, right: box.right - card.right < 2 * GUTTER });
	const from = reach(a), to = reach(b), side = from.left && to.left ? 'left' : from.right && to.right ? 'right' : null;
	const [out, back] = side ? [side, side] : [from.left ? 'left' : 'right', to.left ? 'left' : 'right'];
	const edge = (at) => (at === 'left' ? GUTTER / 2 : box.width - GUTTER / 2), end = (card, at) => card[at] - box.left;
	const y1 = (a.top + a.bottom) / 2 - box.top, y2 = (b.top + b.bottom) / 2 - box.top;
	return `M${end(a, out)} ${y1}H${edge(out)}${side ? '' : `V${gap - box.top}H${edge(back)}`}V${y2}H${end(b, back)}`;
}
