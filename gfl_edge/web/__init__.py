"""The live page of a camera's run: annotated images, statistics and Prometheus metrics over HTTP (the extra ``web``).

A camera hands every frame over by storing a reference (:class:`gfl_edge.web.live.Live`); all else happens in a thread
of the page's own (:class:`gfl_edge.web.page.LivePage`). It may import filters, media and the counters of
``gfl_edge.bench.device``, not the camera, which imports it.
"""
