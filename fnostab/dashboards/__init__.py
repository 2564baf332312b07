"""Views of the MLflow UI, as data: one file a view, which `fnostab.tracking.pages.views` installs.

Each file holds

    title       what the UI's list of views shows
    opens       CHART or TABLE
    filter      of runs; {study} and {control} stand for the newest study's hash and control arm
    group_by    keys as [mode, name], where mode is tag or param; without any, MLflow hides trials below
                their study's run
    columns     of the table
    sections    of charts: name, columns, height, charts; a chart is given in MLflow's own words,
                and what it leaves out is filled in

Metrics that no run has are hidden, so a view may name more than a study records.
"""
