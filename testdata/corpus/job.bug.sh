(sleep 0.01; exit 3) &
wait $!
