// The fixed parts of report.html: style, and the script that draws `steps` and `validation` as
// curves.
#pragma once

namespace qianli::train {

inline constexpr const char* kReportStyle = R"html(<style>
:root{--ink:#1c1b19;--soft:#6b6862;--line:#dcd8d0;--paper:#faf8f4;--card:#fff;--a:#b3402a;--b:#2a6db3}
@media(prefers-color-scheme:dark){:root{--ink:#ece9e2;--soft:#9c978d;--line:#3a3833;--paper:#191816;--card:#22211e;--a:#e8836d;--b:#79b1ec}}
*{box-sizing:border-box}body{margin:2rem auto;max-width:72rem;padding:0 1rem;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-weight:600;font-size:1.5rem;margin:0 0 1rem}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin-bottom:1.2rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem}
.tile b{display:block;font-size:1.1rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:.8rem}
#charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(21rem,1fr));gap:.8rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem}
figure.wide{grid-column:1/-1}
figcaption{display:flex;justify-content:space-between;font-size:.85rem;margin-bottom:.3rem}
figcaption span{color:var(--soft);font-variant-numeric:tabular-nums}
svg{width:100%;display:block}text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
details{margin-top:1.2rem}pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;overflow:auto}
</style>)html";

inline constexpr const char* kReportScript = R"html(<script>
const short=v=>{if(v==null)return'';const a=Math.abs(v);if(a>=1e9)return(v/1e9).toPrecision(3)+' G';if(a>=1e6)return(v/1e6).toPrecision(3)+' M';
if(a>=1e4)return(v/1e3).toPrecision(3)+' k';if(a!==0&&a<1e-3)return v.toExponential(1);return String(+v.toPrecision(4))};
const ns='http://www.w3.org/2000/svg';
const add=(parent,name,attributes,content)=>{const e=document.createElementNS(ns,name);for(const k in attributes)e.setAttribute(k,attributes[k]);if(content!=null)e.textContent=content;parent.append(e);return e};
function ticks(low,high,count){const raw=(high-low)/count||1,power=10**Math.floor(Math.log10(raw)),step=[1,2,5,10].find(m=>m*power>=raw)*power;
const list=[];for(let t=Math.ceil(low/step)*step;t<=high+step*1e-9;t+=step)list.push(t);return list}
function chart(title,series,wide){
const W=wide?1080:520,H=wide?300:190,L=56,R=12,T=8,B=24;
const all=series.flatMap(s=>s.points);if(!all.length)return;
let x0=Infinity,x1=-Infinity,y0=Infinity,y1=-Infinity;
for(const[x,y]of all){x0=Math.min(x0,x);x1=Math.max(x1,x);y0=Math.min(y0,y);y1=Math.max(y1,y)}
if(x0===x1)x1=x0+1;const pad=(y1-y0)*.05||Math.abs(y1)*.05||1;if(y0>0&&y0<(y1-y0)*.5)y0=0;else y0-=pad;y1+=pad;
const X=x=>L+(x-x0)/(x1-x0)*(W-L-R),Y=y=>H-B-(y-y0)/(y1-y0)*(H-T-B);
const figure=document.createElement('figure');if(wide)figure.className='wide';
const caption=document.createElement('figcaption'),name=document.createElement('b'),value=document.createElement('span');
name.textContent=title;caption.append(name,value);figure.append(caption);
const svg=add(figure,'svg',{viewBox:`0 0 ${W} ${H}`,role:'img','aria-label':title});
for(const t of ticks(y0,y1,wide?6:4)){add(svg,'line',{x1:L,x2:W-R,y1:Y(t),y2:Y(t),stroke:'var(--line)'});add(svg,'text',{x:L-6,y:Y(t)+4,'text-anchor':'end'},short(t))}
for(const t of ticks(x0,x1,wide?10:5))add(svg,'text',{x:X(t),y:H-6,'text-anchor':'middle'},short(t));
for(const s of series){const d=s.points.map(([x,y],i)=>(i?'L':'M')+X(x).toFixed(1)+' '+Y(y).toFixed(1)).join('');
add(svg,'path',{d,fill:'none',stroke:s.colour,'stroke-width':s.width||1.6,'stroke-linejoin':'round',opacity:s.opacity||1});
if(s.dots)for(const[x,y]of s.points)add(svg,'circle',{cx:X(x),cy:Y(y),r:3,fill:s.colour})}
const cross=add(svg,'line',{y1:T,y2:H-B,stroke:'var(--soft)','stroke-dasharray':'3 3',visibility:'hidden'});
const last=()=>value.textContent=series.filter(s=>s.name).map(s=>s.name+' '+short(s.points.at(-1)?.[1])).join('  ·  ');last();
svg.onmousemove=e=>{const box=svg.getBoundingClientRect(),x=x0+((e.clientX-box.left)/box.width*W-L)/(W-L-R)*(x1-x0);
const near=s=>s.points.reduce((a,b)=>Math.abs(b[0]-x)<Math.abs(a[0]-x)?b:a);const p=near(series[0]);
cross.setAttribute('x1',X(p[0]));cross.setAttribute('x2',X(p[0]));cross.setAttribute('visibility','visible');
value.textContent='step '+p[0]+'  ·  '+series.filter(s=>s.name).map(s=>s.name+' '+short(near(s)[1])).join('  ·  ')};
svg.onmouseleave=()=>{cross.setAttribute('visibility','hidden');last()};
document.getElementById('charts').append(figure)}
const column=i=>steps.filter(r=>r[i]!=null).map(r=>[r[0],r[i]]);
// The mean of the neighbours on both sides: a mean of the past alone would lag behind the curve.
function smooth(points){const reach=Math.max(1,Math.round(points.length/60)),sums=[0];
for(const[,y]of points)sums.push(sums.at(-1)+y);
return points.map(([x],i)=>{const a=Math.max(0,i-reach),b=Math.min(points.length,i+reach+1);return[x,(sums[b]-sums[a])/(b-a)]})}
const loss=column(1);
chart('Loss',[{name:'training (smoothed)',points:smooth(loss),colour:'var(--a)',width:2},{points:loss,colour:'var(--a)',opacity:.25,width:1},
...(validation.length?[{name:'validation',points:validation,colour:'var(--b)',dots:true}]:[])],true);
chart('Learning rate',[{name:'lr',points:column(2),colour:'var(--b)'}]);
chart('Gradient norm (before clipping)',[{name:'norm',points:column(3),colour:'var(--b)'}]);
chart('Speed',[{name:'tokens/s',points:column(4),colour:'var(--b)'}]);
chart('Step time',[{name:'seconds',points:column(7),colour:'var(--b)'}]);
chart('Model FLOPs utilisation',[{name:'mfu',points:column(5),colour:'var(--b)'}]);
chart('Peak tensor memory',[{name:'bytes',points:column(6),colour:'var(--b)'}]);
</script>)html";

}  // namespace qianli::train
