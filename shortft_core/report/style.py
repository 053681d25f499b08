"""The style sheet of a report: light, dark, narrow and printed."""

from __future__ import annotations

from typing import Final

CSS: Final = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1d1d21; --faint: #65656f; --rule: #dededa;
  --good: #00704d; --bad: #b13a00; --badge: #ececea;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b2568f; --c4: #8a7300; --c5: #7a7a85;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17171a; --card: #202024; --ink: #ececf0; --faint: #a2a2ad; --rule: #38383f;
    --good: #4fd0a3; --bad: #ff9a62; --badge: #2e2e34;
    --c0: #56b4e9; --c1: #ff9450; --c2: #3ccba0; --c3: #e59cca; --c4: #e6c84a; --c5: #9a9aa6;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 20px 60px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 36px 0 10px; padding-top: 12px; border-top: 1px solid var(--rule); }
p { margin: 6px 0; max-width: 75ch; }
.lead { font-size: 17px; max-width: 95ch; }
.note, .empty, figcaption .legend, td.time { color: var(--faint); }
.note, .empty { font-size: 13.5px; }
.badge { background: var(--badge); border-radius: 999px; padding: 2px 11px; font-size: 14px;
  font-weight: 500; vertical-align: 4px; white-space: nowrap; }
.badge.bad { color: var(--bad); } .badge.good { color: var(--good); }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; }
details { margin-top: 14px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 6px 0; }
th { text-align: left; font-weight: 600; color: var(--faint); font-size: 13.5px; }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td.n, th.n { text-align: right; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 14em; }
tr.sum td { font-weight: 600; }
.facts th { padding-right: 24px; vertical-align: top; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
code, pre, .hash { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.hash { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px;
  overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
figure { margin: 0; padding: 12px 14px 8px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px; break-inside: avoid; }
figcaption { font-size: 14px; margin-bottom: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 0 16px; font-size: 12.5px; }
.key { width: 24px; height: 8px; margin-right: 5px; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg.key { display: inline-block; width: 24px; height: 8px; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--rule); } .axis { stroke: var(--faint); }
.border { stroke: var(--faint); stroke-dasharray: 2 3; }
polyline, .key line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.faint { stroke-width: 1.2; opacity: 0.38; } .dashed { stroke-dasharray: 6 4; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.bar { stroke-width: 1.5; opacity: 0.7; }
circle { stroke: none !important; }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
circle.c3 { fill: var(--c3); } circle.c4 { fill: var(--c4); } circle.c5 { fill: var(--c5); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 14px; }
.pair { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px;
  break-inside: avoid; min-width: 0; }
.pair p { margin: 0 0 8px; font-weight: 500; line-height: 1.35; overflow-wrap: anywhere; }
.pair p small { color: var(--faint); font-weight: 400; white-space: nowrap; }
.pictures { display: flex; gap: 8px; }
.pictures div { flex: 1 1 0; min-width: 0; font-size: 12.5px; color: var(--faint); }
.pictures img { display: block; width: 100%; height: auto; border-radius: 4px;
  background: var(--badge); }
.pictures img.small { image-rendering: pixelated; }
.pair table { width: 100%; font-size: 12.5px; margin: 8px 0 0; }
.pair th { font-size: 12px; } .pair th, .pair td { padding: 1px 0 1px 8px; border: 0; }
.pair th { text-align: right; } .pair th:first-child { text-align: left; }
.pair th:first-child, .pair td:first-child { padding-left: 0; }
@media (max-width: 720px) {
  .charts, .pairs { grid-template-columns: minmax(0, 1fr); }
  body { padding: 16px 12px 40px; } h1 { font-size: 22px; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --faint: #55555e;
    --rule: #ccc; --good: #00704d; --bad: #b13a00; --badge: #eee; --c0: #0072b2; --c1: #d55e00;
    --c2: #009e73; --c3: #b2568f; --c4: #8a7300; --c5: #7a7a85; }
  body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  pre { white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
