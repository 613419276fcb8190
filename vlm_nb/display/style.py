"""The style sheet of notebook outputs. Theme colours come from JupyterLab or VS Code, else from the page."""

from __future__ import annotations

_CSS = """
.vlm-nb{--vlm-muted:var(--jp-content-font-color2,color-mix(in srgb,currentColor 72%,transparent));
--vlm-line:color-mix(in srgb,currentColor 22%,transparent);
display:flex;flex-wrap:wrap;gap:10px 20px;align-items:flex-start;max-width:100%;padding:4px 0;
color:var(--jp-content-font-color1,var(--vscode-editor-foreground,inherit));
font-family:var(--jp-content-font-family,system-ui,sans-serif);font-size:14px;line-height:1.5;
overflow-wrap:anywhere;text-align:start}
.vlm-nb *{box-sizing:border-box}
.vlm-nb-view{position:relative;flex:0 1 auto;max-width:100%;line-height:0;border-radius:4px;overflow:hidden}
.vlm-nb-view img{display:block;width:100%;height:auto;max-width:100%;margin:0}
.vlm-nb-view::after{content:"";position:absolute;inset:0;border:1px solid var(--vlm-line);
border-radius:inherit;pointer-events:none}
.vlm-nb-view svg{position:absolute;inset:0;width:100%;height:100%}
.vlm-nb-view rect:hover{fill:currentColor;fill-opacity:.15;stroke:currentColor;stroke-width:3;
vector-effect:non-scaling-stroke}
.vlm-nb-text{flex:1 1 240px;min-width:0;max-width:72ch;display:flex;flex-direction:column;gap:6px}
.vlm-nb-prompt,.vlm-nb-cost,.vlm-nb-more{color:var(--vlm-muted)}
.vlm-nb-prompt{font-size:13px;border-inline-start:2px solid var(--vlm-line);padding-inline-start:8px;
white-space:pre-wrap;max-height:6em;overflow:auto}
.vlm-nb-caption{white-space:pre-wrap;font-size:15px}
.vlm-nb-scroll{max-height:18em;overflow:auto;white-space:pre-wrap}
.vlm-nb-cost,.vlm-nb-more{font-size:12px}
.vlm-nb-list{display:flex;flex-wrap:wrap;gap:4px 6px;max-height:13em;overflow:auto}
.vlm-nb-chip{display:inline-block;max-width:100%;padding:1px 8px 1px 6px;
font-size:13px;line-height:20px;border:1px solid var(--vlm-line);border-radius:11px}
.vlm-nb-chip i{display:inline-block;width:10px;height:10px;margin-inline-end:6px;
border-radius:2px;border:1px solid rgba(26,26,26,.75)}
.vlm-nb-chip i.vlm-nb-dash{border:2px dashed #1a1a1a}
.vlm-nb-chip small{margin-inline-start:6px;color:var(--vlm-muted);font-size:12px}
.vlm-nb-note{align-self:flex-start;max-width:100%;padding:0 8px;font-size:12px;line-height:20px;
border-radius:4px;background:rgba(230,159,0,.2);border:1px solid rgba(230,159,0,.65)}
.vlm-nb-warn{border-inline-start:3px solid #d55e00;padding-inline-start:8px}
.vlm-nb details{font-size:13px}
.vlm-nb summary{cursor:pointer;color:var(--vlm-muted)}
.vlm-nb pre{white-space:pre-wrap;margin:0;padding:0;font-size:13px;color:inherit;background:none;
font-family:var(--jp-code-font-family,ui-monospace,monospace)}
.vlm-nb-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(200px,100%),1fr));gap:14px 12px;
flex:1 1 100%;min-width:0}
.vlm-nb-card{display:flex;flex-direction:column;gap:4px;min-width:0;font-size:13px;line-height:1.4}
.vlm-nb-card .vlm-nb-caption{font-size:13px;display:-webkit-box;
-webkit-box-orient:vertical;-webkit-line-clamp:4;overflow:hidden}
.vlm-nb-card .vlm-nb-chip{font-size:12px;line-height:17px}
.vlm-nb-card .vlm-nb-view{align-self:flex-start}
.vlm-nb-name{color:var(--vlm-muted);font-size:12px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
"""

STYLE = "<style>" + _CSS.replace("\n", "") + "</style>"
