cd /tmp/ME/samp
for k in rowsN movingN ownN regularN; do for n in kdvb react; do WT=/work/wt_house bash row.sh $n $k 1.5 c; done; done
