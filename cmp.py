import json,numpy as np,sys
o=json.load(open('/tmp/obs36/c_old.json'))
for m in sys.argv[1:]:
    c=json.load(open(f'/tmp/obs36/c_{m}.json')); R=[[],[],[],[]]
    for n in o:
        for k in range(4): R[k]+= [np.log(a/b) for a,b in zip(c[n][k],o[n][k])]
    print(m,'full, quarter, eighth late, others: gm', [round(float(np.exp(np.mean(r))),3) for r in R], 'max', [round(float(np.exp(np.max(r))),2) for r in R], 'share>1.03', [round(float(np.mean(np.array(r)>.03)),2) for r in R])
    print([(n,k,round(a/b,2)) for n in o for k in (0,3) for a,b in zip(c[n][k],o[n][k]) if a>1.05*b])
    print('late over full old: gm', [round(float(np.exp(np.mean([np.log(a/b) for n in o for a,b in zip(c[n][k],o[n][0])]))),3) for k in (1,2)], 'max', [round(max(a/b for n in o for a,b in zip(c[n][k],o[n][0])),2) for k in (1,2)])
