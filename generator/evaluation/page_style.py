"""The style of page.py's page: light and dark, readable on a phone, nothing loaded.

Does not know what the page says.
"""

STYLE = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#22201c;--soft:#6d6a62;--line:#e6e2d8;--good:#18794e;--bad:#b3261e;
--s0:#c4501b;--s1:#13756b;--s2:#6650c9;--s3:#8a6d1d}
@media(prefers-color-scheme:dark){:root{--paper:#15161a;--card:#1d1f25;--ink:#eceae4;--soft:#a09d95;--line:#33353d;
--good:#5cc793;--bad:#ff8a80;--s0:#ff9a63;--s1:#4fc9b9;--s2:#ab9bff;--s3:#dcc05f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1100px;margin:0 auto;padding:28px 16px 64px}
.mark{margin:0;font-size:13px;letter-spacing:.14em;text-transform:uppercase;color:var(--soft)}
h1{margin:2px 0 6px;font-size:clamp(26px,5vw,38px);line-height:1.15;font-weight:650;letter-spacing:-.015em}
h2{margin:44px 0 4px;font-size:20px;font-weight:650}
.facts,.keys{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;
gap:2px 18px;color:var(--soft);font-size:14px}
.keys{gap:4px 20px;margin:0 0 10px;color:var(--ink)}
.keys li{display:flex;align-items:center;gap:7px}
.key{width:28px;height:12px}
.said{margin:0 0 14px;max-width:72ch;color:var(--soft);font-size:14px}
.warning{margin:22px 0 0;padding:12px 16px;border:1px solid var(--bad);border-radius:10px;color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:12px;margin-top:24px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.tile p{margin:0;font-size:14px;color:var(--soft)}
.tile .value{margin:2px 0;font-size:30px;line-height:1.2;font-weight:650;color:var(--ink);
font-variant-numeric:tabular-nums}
.tile .below{font-size:13px}
.met{color:var(--good);font-weight:600}.missed{color:var(--bad);font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:12px;margin-bottom:14px}
.chart{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 10px 6px}
.chart figcaption{padding:0 6px 6px;font-size:13px;color:var(--soft)}
.chart figcaption b{color:var(--ink);font-size:15px;margin-right:6px}
.chart svg{display:block;width:100%;height:auto}
.grid{stroke:var(--line);fill:none}
.level{stroke:var(--soft);stroke-dasharray:4 3;fill:none}
.tick{fill:var(--soft);font-size:11px;font-family:inherit}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}.line.s3{stroke:var(--s3)}
.dot.s0{fill:var(--s0)}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}.dot.s3{fill:var(--s3)}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px 8px;margin-top:10px}
.sheet figure{margin:0}
.sheet img{display:block;width:100%;height:auto;border-radius:5px}
.sheet img+img{margin-top:3px}
.sheet figcaption{margin-top:3px;font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums}
.table{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:8px 14px;text-align:right;white-space:nowrap}
thead th:first-child{width:34%}
thead th{color:var(--soft);font-weight:500;font-size:13px}
tbody th{text-align:left;font-weight:500}
tbody tr{border-top:1px solid var(--line)}
details{margin-top:44px}
summary{cursor:pointer;color:var(--soft)}
pre{overflow-x:auto;padding:14px;font-size:12px;line-height:1.45;background:var(--card);border:1px solid var(--line);
border-radius:12px}
@media(max-width:480px){.sheet{grid-template-columns:repeat(2,1fr)}.tiles{grid-template-columns:repeat(2,1fr)}
.tile{padding:12px}.tile .value{font-size:24px}th,td{padding:8px 10px}}
""".replace("\n", "")
